"""Reading versions from MLflow's database without MLflow.

Importing MLflow and opening its store costs seconds and hundreds of megabytes, in every process that only asks which
version serves. So versions are written through MLflow alone and read by SQL. A contract test holds this reading against
MLflow's client.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from millpond.core.errors import SettingsError, Unavailable
from millpond.registry.ports import Version

FINGERPRINT, TRAINED_BY = "millpond.fingerprint", "millpond.trained_by"
_OWN_PREFIXES = ("millpond.", "mlflow.")
_WAIT_SECONDS = 20

# MLflow keeps the rows of deleted versions, under this stage.
_LIVE = "current_stage <> 'Deleted_Internal' AND workspace = 'default'"
_MODELS = f"SELECT DISTINCT name FROM model_versions WHERE {_LIVE} ORDER BY name"
_VERSIONS = f"""
    SELECT version, run_id, creation_time, storage_location FROM model_versions
    WHERE name = ? AND {_LIVE} ORDER BY version
"""
_TAGS = "SELECT version, key, value FROM model_version_tags WHERE name = ? AND workspace = 'default'"
_ALIASES = "SELECT version, alias FROM registered_model_aliases WHERE name = ? AND workspace = 'default' ORDER BY alias"
_METRICS = f"""
    SELECT version, key, CASE WHEN is_nan THEN NULL ELSE value END
    FROM model_versions JOIN latest_metrics ON run_uuid = run_id
    WHERE name = ? AND {_LIVE} ORDER BY key
"""
_PARAMS = "SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key"
_EXPERIMENT = "SELECT experiment_id FROM runs WHERE run_uuid = ?"


class MLflowTables:
    """The registry's tables, read only. Without a database there is nothing in it. Safe across threads."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        with self._reading() as read:
            return [name for (name,) in read(_MODELS)]

    def versions(self, model: str) -> list[Version]:
        """Versions of a model as of one moment, oldest first."""
        tags: defaultdict[int, dict[str, str]] = defaultdict(dict)
        metrics: defaultdict[int, dict[str, float]] = defaultdict(dict)
        aliases: defaultdict[int, list[str]] = defaultdict(list)
        with self._reading() as read:
            found = read(_VERSIONS, model)
            for number, key, value in read(_TAGS, model):
                tags[number][key] = value
            for number, key, value in read(_METRICS, model):
                metrics[number][key] = float("nan") if value is None else value
            for number, alias in read(_ALIASES, model):
                aliases[number].append(alias)
        return [
            Version(
                model=model,
                number=number,
                run_id=run_id or "",
                created_at=datetime.fromtimestamp(created / 1000, tz=UTC),
                created_by=tags[number].get(TRAINED_BY, ""),
                aliases=tuple(aliases[number]),
                metrics=metrics[number],
                fingerprint=tags[number].get(FINGERPRINT, ""),
                location=location or "",
                tags=user_tags(tags[number]),
            )
            for number, run_id, created, location in found
        ]

    def params(self, run_id: str) -> dict[str, str]:
        """Parameters of a run, as text, by name."""
        with self._reading() as read:
            return dict(read(_PARAMS, run_id))

    def experiment(self, run_id: str) -> str | None:
        """Id of the experiment that a run belongs to, or None where there is no such run."""
        with self._reading() as read:
            rows = read(_EXPERIMENT, run_id)
        return str(rows[0][0]) if rows else None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """A function from SQL and its values to rows; all of its answers are of one moment."""
        if not self._database.exists():
            yield lambda *_: []
            return
        try:
            # "rw" and not "ro": the log of a database that nobody has open is recovered by whoever comes first.
            uri = f"file:{quote(str(self._database))}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)) as db:
                db.isolation_level = None
                db.execute("BEGIN")
                yield lambda sql, *values: db.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise SettingsError(
                    "the model store's database was made by another version of MLflow",
                    where=str(self._database),
                    hint="install the MLflow that made it, or bring a copy up to date with `mlflow db upgrade`",
                ) from error
            raise Unavailable(
                f"the model store's database cannot be read: {error}", where=str(self._database)
            ) from error
        except sqlite3.DatabaseError as error:
            raise Unavailable(
                f"the model store's database is damaged: {error}",
                where=str(self._database),
                hint="restore it from a copy",
            ) from error


def user_tags(tags: dict[str, str]) -> dict[str, str]:
    """The tags that are neither ours nor MLflow's."""
    return {name: value for name, value in tags.items() if not name.startswith(_OWN_PREFIXES)}
