"""One MLflow database and one directory of artifacts, as a client that any thread may use."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from millpond.core.errors import SettingsError
from millpond.registry import mlflow_library

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

SCHEME = "mlflow-artifacts"

_directories: dict[str, Path] = {}


def tracking_uri(database: Path) -> str:
    """MLflow's name for a database file."""
    return f"sqlite:///{quote(str(database.absolute()), safe='/ ')}"


def artifact_directory(uri: str, artifacts: Path) -> Path:
    """Where an artifact URI of ours lies on disk; what is stored holds no absolute path, so state can move.

    Raises:
        ValueError: The URI is of another kind, or leads out of the directory.
    """
    parts = urlsplit(uri)
    directory = (artifacts / unquote(parts.path).lstrip("/")).resolve()
    if parts.scheme != SCHEME or not directory.is_relative_to(artifacts.resolve()):
        raise ValueError(f"{uri!r} is no artifact of this store")
    return directory


def _repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """MLflow's factory for "mlflow-artifacts:/...": the directory where the database is ours, otherwise as it was."""
    from mlflow import get_tracking_uri
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    artifacts = _directories.get(tracking_uri or get_tracking_uri())
    if artifacts is None:
        return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)
    return LocalArtifactRepository(artifact_directory(artifact_uri, artifacts).as_uri())


def _resolve_locally(uri: str, artifacts: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as repositories

    _directories[uri] = artifacts
    repositories.register(SCHEME, _repository)


class Connection:
    """Opens on first use. Safe across threads; any number of processes may have one to the same database.

    Args:
        database: SQLite file; made where it does not exist.
        artifacts: Directory that "mlflow-artifacts:/" means.
    """

    def __init__(self, database: Path, artifacts: Path) -> None:
        self.database = database.absolute()
        self.artifacts = artifacts.absolute()
        self._client: MlflowClient | None = None
        self._opening = Lock()

    @property
    def client(self) -> MlflowClient:
        """MLflow's client. It writes into the database itself, not through a server."""
        if self._client is None:
            with self._opening:
                if self._client is None:
                    self._client = self._open()
        return self._client

    def _open(self) -> MlflowClient:
        mlflow_library.load()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        prepare(self.database)
        uri = tracking_uri(self.database)
        _resolve_locally(uri, self.artifacts)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            mlflow_library.retrying(lambda: client.get_experiment("0"))
        except MlflowException as error:
            if "out-of-date database schema" not in str(error):
                raise mlflow_library.unexpected(error, "opening its database") from error
            raise SettingsError(
                "the model store's database was made by another version of MLflow",
                where=str(self.database),
                hint=f"make a copy of it, then run: mlflow db upgrade '{uri}'",
            ) from error
        return client

    def directory(self, uri: str) -> Path:
        """The local directory of an artifact URI."""
        return artifact_directory(uri, self.artifacts)

    def optimize(self) -> None:
        """Renew SQLite's statistics from a sample; without them, searches of many runs take seconds. Skipped while
        somebody else writes.
        """
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(self.database, timeout=1)) as db,
        ):
            db.execute("PRAGMA analysis_limit = 1000")
            db.execute("ANALYZE")


def prepare(database: Path) -> None:
    """Make the database where there is none: tables, write-ahead log, and a default experiment without a path in it.

    Whole or not at all, whatever interrupts it; processes that come at the same time wait for the first.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(database.with_name(database.name + ".lock")):
        if database.exists():
            return
        unfinished = database.with_name(database.name + ".new")
        for leftover in database.parent.glob(unfinished.name + "*"):
            leftover.unlink()
        _create(unfinished)
        unfinished.replace(database)


def _create(database: Path) -> None:
    mlflow_library.load()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore(tracking_uri(database), f"{SCHEME}:/")
    store.engine.dispose()
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
