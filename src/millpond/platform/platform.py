"""An opened project: its settings and definitions, and its parts, each made when first used."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from millpond.definitions.project import Definitions
from millpond.platform.loading import load_definitions
from millpond.platform.progress import Listener, silent
from millpond.settings.project import Settings, load_settings

if TYPE_CHECKING:
    from millpond.access.store import AccessStore
    from millpond.features.online.ports import OnlineStore, ViewState
    from millpond.lake.current import CurrentSnapshots
    from millpond.lake.duckdb import DuckDBEngine
    from millpond.lake.iceberg import IcebergLake
    from millpond.lake.lineage import Lineage
    from millpond.lake.ports import Engine
    from millpond.registry.mlflow_store import MLflowStore


class Platform:
    """One project under one profile, used by one thread; make another for another thread.

    Attributes:
        settings: The project's settings.
        user: Who acts; recorded with everything that is written.
        listener: Told of the steps of the use cases.
        definitions: What the project declares; read from its files when first needed, unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        user: str | None = None,
        listener: Listener = silent,
        definitions: Definitions | None = None,
    ) -> None:
        self.settings = settings
        self.user = user or getpass.getuser()
        self.listener = listener
        self._definitions = definitions

    @cached_property
    def definitions(self) -> Definitions:
        """What the project declares, validated."""
        return self._definitions or load_definitions(self.settings.definitions)

    @cached_property
    def lake(self) -> IcebergLake:
        from millpond.lake.iceberg import IcebergLake

        return IcebergLake(self.settings.lake)

    @cached_property
    def snapshots(self) -> CurrentSnapshots:
        """The current snapshots of tables, asked of the catalog once a second."""
        from millpond.lake.current import CurrentSnapshots

        return CurrentSnapshots(self.lake)

    @cached_property
    def lineage(self) -> Lineage:
        """By what tables were changed; it does not open the lake."""
        from millpond.lake.lineage import Lineage

        return Lineage(self.settings.lake)

    @property
    def has_online(self) -> bool:
        """Whether anything was ever pushed, or kept for lookups."""
        return self.settings.profile.redis is not None or self.settings.online.exists()

    @property
    def online_states(self) -> list[ViewState]:
        """What the online store holds, by view name."""
        return self.online.states() if self.has_online else []

    @cached_property
    def online(self) -> OnlineStore:
        """The newest state of every entity, for lookups."""
        from millpond.features.online.lmdb import LmdbStore

        redis = self.settings.profile.redis
        if redis is not None:
            return _shared_store(self.settings.online, redis, self.settings.name)
        return LmdbStore(self.settings.online)

    @cached_property
    def store(self) -> MLflowStore:
        from millpond.registry.mlflow_store import MLflowStore

        return MLflowStore(self.settings.tracking_database, self.settings.artifacts)

    @cached_property
    def access(self) -> AccessStore:
        """Identities, tokens, the audit log, and what definitions meant."""
        from millpond.access.store import AccessStore

        self.settings.state.mkdir(parents=True, exist_ok=True)
        return AccessStore.open(self.settings.platform_database)

    def audit(self, *, action: str, object: str, why: str = "", details: Mapping[str, Any] | None = None) -> None:
        """Put what the user did into the audit log; durable when it returns."""
        self.access.audit.append(self.user, action, object, why, details)

    def new_engine(self) -> DuckDBEngine:
        """A query engine of one's own, to be closed by whoever asked for it."""
        from millpond.lake.duckdb import DuckDBEngine

        profile = self.settings.profile
        return DuckDBEngine(
            self.lake,
            threads=profile.threads,
            memory_limit=profile.memory_limit,
            temp_directory=self.scratch / "spill",
        )

    def new_compute(self, dialect: Literal["duckdb", "spark"] | None = None) -> Engine:
        """An engine for heavy work, to be closed by whoever asked for it: the profile's, or the one that is named.

        Spark is started by the first query, not by this call.
        """
        profile = self.settings.profile
        if (dialect or profile.engine) == "duckdb":
            return self.new_engine()
        from millpond.lake.spark import SparkEngine

        conf = dict(profile.spark.conf)
        if profile.memory_limit is not None and profile.spark.master.startswith("local"):
            conf.setdefault("spark.driver.memory", profile.memory_limit.replace(" ", "").lower().removesuffix("b"))
        return SparkEngine(
            self.lake,
            master=profile.spark.master,
            remote=profile.spark.remote,
            threads=profile.threads,
            conf=conf,
            temp_directory=self.scratch / "spill",
        )

    @property
    def scratch(self) -> Path:
        """Where temporary files go; what killed processes leave there is collected with the lake's garbage."""
        return self.settings.lake / "scratch"

    @contextmanager
    def engine(self) -> Iterator[DuckDBEngine]:
        """The embedded query engine, for small reads; one's own, closed at the end of the block."""
        engine = self.new_engine()
        try:
            yield engine
        finally:
            engine.close()

    @contextmanager
    def compute(self, dialect: Literal["duckdb", "spark"] | None = None) -> Iterator[Engine]:
        """The engine for heavy work (the profile's, or the one named); one's own, closed at the end of the block."""
        engine = self.new_compute(dialect)
        try:
            yield engine
        finally:
            engine.close()


@cache
def _shared_store(replica: Path, redis: str, project: str) -> OnlineStore:
    """One a process, whatever its number of platforms: it follows Redis with a thread of its own."""
    from millpond.features.online.lmdb import LmdbStore
    from millpond.features.online.redis import RedisStore

    return RedisStore(redis, LmdbStore(replica), project=project)


def open_project(
    folder: str | Path | None = None,
    *,
    profile: str | None = None,
    user: str | None = None,
    listener: Listener = silent,
) -> Platform:
    """Open the project at or above `folder` (default: the working folder) under a profile.

    Raises:
        NotFound: There is no `millpond.toml`.
        SettingsError: It is wrong.
    """
    return Platform(load_settings(Path(folder) if folder else None, profile), user=user, listener=listener)
