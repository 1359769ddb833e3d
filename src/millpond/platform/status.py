"""The project in a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from millpond.platform.platform import Platform
from millpond.platform.release_models import ReleaseView
from millpond.platform.release_pages import view
from millpond.platform.versions import CHAMPION


@dataclass(frozen=True)
class TableStatus:
    """A table: its rows and last change (UTC), None where it is declared and not there yet; "ingested" or "derived"."""

    name: str
    rows: int | None
    changed_at: datetime | None
    kind: str


@dataclass(frozen=True)
class ModelStatus:
    """A model: its versions, the one that serves, when the newest was trained (UTC), and the release under way."""

    name: str
    versions: int
    champion: int | None
    trained_at: datetime | None
    release: ReleaseView | None = None


@dataclass(frozen=True)
class OnlineStatus:
    """A view online: its entities, when it was refreshed, and from which instant on it is exact (UTC; None: always)."""

    view: str
    entities: int
    refreshed_at: datetime
    exact_from: datetime | None


@dataclass(frozen=True)
class ProjectStatus:
    """A project under a profile; `synced_at` says until when the online store is complete, None is until now."""

    project: str
    profile: str
    tables: tuple[TableStatus, ...]
    models: tuple[ModelStatus, ...]
    online: tuple[OnlineStatus, ...]
    synced_at: datetime | None


def project_status(platform: Platform) -> ProjectStatus:
    """What is declared, and what of it is there; registered models too."""
    tables = []
    for name, table in platform.definitions.tables.items():
        kind = "derived" if table.derivation else "ingested"
        if platform.lake.exists(name):
            snapshot = platform.lake.snapshot(name)
            tables.append(TableStatus(name, snapshot.rows, snapshot.committed_at, kind))
        else:
            tables.append(TableStatus(name, None, None, kind))
    models = []
    for name in dict.fromkeys((*platform.definitions.models, *platform.store.models())):
        versions = platform.store.versions(name)
        champion = next((each.number for each in versions if CHAMPION in each.aliases), None)
        trained_at = versions[-1].created_at if versions else None
        under_way = platform.access.releases.active(name)
        shown = view(under_way) if under_way else None
        models.append(ModelStatus(name, len(versions), champion, trained_at, shown))
    online = tuple(
        OnlineStatus(each.view.name, each.entities, each.refreshed_at, each.grid or each.since)
        for each in platform.online_states
    )
    synced_at = platform.online.synced_at() if online else None
    settings = platform.settings
    return ProjectStatus(settings.name, settings.profile_name, tuple(tables), tuple(models), online, synced_at)
