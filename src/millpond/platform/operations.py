"""What the faces do: implements `read_models.Operations` through the serving worker and the model store."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from millpond.core import errors
from millpond.core.errors import MillpondError, RequestError
from millpond.core.time import parse_instant
from millpond.definitions.project import Definitions
from millpond.monitoring.report import SkewReport
from millpond.platform import events, release, release_pages, skew, versions
from millpond.platform.events import Acknowledged
from millpond.platform.platform import Platform
from millpond.platform.predictions import records_to_arrow
from millpond.platform.read_models import Answer, Promotion, SkewRequest
from millpond.platform.release_models import ReleaseMove, ReleaseRequest, ReleaseView
from millpond.platform.workers import ask_worker
from millpond.serving.ports import ServedModel
from millpond.serving.protocol import format_request
from millpond.settings.project import Settings

_TIMEOUT_SECONDS = 60.0


class PlatformOperations:
    """Predicts through the workers behind their Unix sockets, and promotes. Safe across threads."""

    def __init__(self, settings: Settings, definitions: Definitions, workers: Sequence[Path]) -> None:
        self._settings = settings
        self._definitions = definitions
        self._workers = workers
        self._local = threading.local()

    def predict(
        self, model: str, rows: Sequence[Mapping[str, Any]], as_of: datetime | None, user: str
    ) -> Sequence[Answer]:
        """See `read_models.Operations`."""
        platform = self._platform(user)
        champion = versions.require_champion(platform, model)
        served = versions.served_model(platform, champion)
        body = format_request(served.columns, records_to_arrow(rows, served), as_of=as_of)
        reply = self._post(f"/v2/models/{quote(model, safe='')}/infer", body, user)
        number = int(reply["model_version"])
        if number != champion.number:  # a release is under way, or has just ended
            served = versions.served_model(platform, platform.store.version(model, number))
        return list(_answers(reply, served))

    def promote(self, model: str, version: int, why: str, user: str) -> Promotion:
        """See `read_models.Operations`."""
        why = _reason(why, "A promotion")
        platform = self._platform(user)
        before = versions.champion(platform, model)
        release.promote(platform, model, version, why=why)
        return Promotion(model, version, before.number if before else None, user, why)

    def start_release(self, model: str, wanted: ReleaseRequest, user: str) -> ReleaseView:
        """See `read_models.Operations`."""
        why = _reason(wanted.why, "A release")
        platform = self._platform(user)
        plan = release_pages.plan_from(platform, model, wanted)
        begun = release.start(platform, model, wanted.version, plan, why=why, force=wanted.force)
        return release_pages.view(begun)

    def move_release(self, model: str, move: ReleaseMove, why: str, user: str) -> ReleaseView:
        """See `read_models.Operations`."""
        why = _reason(why, "A move of a release")
        moves = {"advance": release.advance, "rollback": release.rollback, "abort": release.abort}
        return release_pages.view(moves[move](self._platform(user), model, why=why))

    def push(self, table: str, rows: Sequence[Mapping[str, Any]], user: str) -> Acknowledged:
        """See `read_models.Operations`."""
        return events.push(self._platform(user), table, rows)

    def measure_skew(self, model: str, wanted: SkewRequest, user: str) -> SkewReport:
        """See `read_models.Operations`."""
        return skew.measure_skew(
            self._platform(user),
            model,
            version=wanted.version,
            sample=wanted.sample,
            since=wanted.since,
            until=wanted.until,
        )

    def _platform(self, user: str) -> Platform:
        found: Platform | None = getattr(self._local, "platform", None)
        if found is None:
            found = self._local.platform = Platform(self._settings, definitions=self._definitions)
        found.user = user
        return found

    def _post(self, path: str, body: bytes, user: str) -> dict[str, Any]:
        headers = {"x-millpond-user": quote(user), "content-type": "application/json"}
        reply = ask_worker(self._workers, "POST", path, content=body, headers=headers, timeout=_TIMEOUT_SECONDS)
        found: dict[str, Any] = reply.json()
        if reply.is_error:
            raise _failure(found)
        return found


def _reason(why: str, what: str) -> str:
    if not why.strip():
        raise RequestError(f"{what} needs a reason", where="why", hint="it is kept in the audit log")
    return why.strip()


def _answers(reply: Mapping[str, Any], served: ServedModel) -> list[Answer]:
    outputs = {each["name"]: _by_row(each) for each in reply["outputs"]}
    ids, instants = outputs.pop("prediction_id"), outputs.pop("as_of")
    said = outputs.pop("answer", [None] * len(ids)) if served.task == "classification" else [None] * len(ids)
    values = next(iter(outputs.values()))
    return [
        Answer(
            prediction_id=ids[row],
            model=served.model,
            version=served.version,
            output=values[row],
            answer=said[row],
            threshold=served.threshold,
            as_of=parse_instant(instants[row]),
            variant=reply["parameters"]["variant"],
            outputs={name: column[row] for name, column in outputs.items()} if served.task == "other" else {},
        )
        for row in range(len(ids))
    ]


def _by_row(tensor: Mapping[str, Any]) -> list[Any]:
    """The values of a tensor, one a row; of a wide one a list a row."""
    data: list[Any] = tensor["data"]
    shape = tensor["shape"]
    if len(shape) == 1 or (data and isinstance(data[0], list)):
        return data
    width = shape[1]
    return [data[row * width : (row + 1) * width] for row in range(shape[0])]


def _failure(body: Mapping[str, Any]) -> MillpondError:
    kind = getattr(errors, str(body.get("type", "")), MillpondError)
    if not (isinstance(kind, type) and issubclass(kind, MillpondError)):
        kind = MillpondError
    what = str(body.get("what") or body.get("error", "The serving worker failed"))
    return kind(what, where=str(body.get("where", "")), hint=str(body.get("hint", "")))
