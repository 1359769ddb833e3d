"""The versions that a serving process answers with: loaded once, warmed, changed between two requests."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from millpond.core.errors import MillpondError, NotFound
from millpond.core.names import did_you_mean
from millpond.platform import versions
from millpond.platform.platform import Platform
from millpond.platform.predictions import load_predictor
from millpond.serving.ports import PredictionSink

if TYPE_CHECKING:
    from millpond.serving.predictor import Predictor

#: Seconds for which the champion of a model is taken to be the same.
CHAMPION_MAX_AGE = 1.0

_log = logging.getLogger("millpond.serving")


class ServedModels:
    """Finds the predictor that answers for a model. Safe across threads.

    A promoted version is loaded and tried on a row beside the traffic; the one before answers until it is ready, and
    goes on where it cannot be loaded.
    """

    def __init__(self, platform: Platform, log: PredictionSink) -> None:
        self._platform = platform
        self._log = log
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, int], threading.Lock] = {}
        self._loaded: dict[tuple[str, int], Predictor] = {}
        self._champions: dict[str, tuple[float, int]] = {}
        self._answering: dict[str, int] = {}

    def names(self) -> list[str]:
        """Models that have a champion, sorted."""
        return sorted(name for name in self._platform.store.models() if self._champion(name) is not None)

    def get(self, model: str, version: str | None = None) -> Predictor:
        """The predictor of a version (default: the champion, or while that is being loaded the one before).

        Raises:
            NotFound: No such model or version, or no version serves.
            Unavailable: The version cannot be loaded here.
        """
        if version is not None:
            return self._load(model, self._number(model, version))
        champion = self._champion(model)
        if champion is None:
            raise self._no_champion(model)
        answering = self._answering.get(model)
        if answering is None or (model, champion) in self._loaded:
            predictor = self._load(model, champion)
            self._answering[model] = champion
            return predictor
        if not self._is_loading(model, champion):
            threading.Thread(target=self._load_beside, args=(model, champion), daemon=True).start()
        return self._load(model, answering)

    def _load(self, model: str, number: int) -> Predictor:
        with self._lock:
            turn = self._loading.setdefault((model, number), threading.Lock())
        with turn:
            found = self._loaded.get((model, number))
            if found is None:
                version = self._platform.store.version(model, number)
                found = load_predictor(self._platform, version, self._log, self._platform.new_engine())
                self._warm(found)
                self._loaded[model, number] = found
        return found

    def _load_beside(self, model: str, number: int) -> None:
        try:
            self._load(model, number)
        except MillpondError as error:
            _log.warning("version %s of %s does not take over: %s", number, model, error)

    def _is_loading(self, model: str, number: int) -> bool:
        with self._lock:
            turn = self._loading.get((model, number))
        return turn is not None and turn.locked()

    def _warm(self, predictor: Predictor) -> None:
        """Score a row of the examples, unlogged, so that no request waits for what is made when first used."""
        served = predictor.served
        found = versions.load(self._platform, self._platform.store.version(served.model, served.version))
        columns = ", ".join(f'"{column.name}"' for column in served.columns)
        present = " AND ".join(f'"{column.name}" IS NOT NULL' for column in served.columns if column.required)
        examples = self._platform.lake.snapshot(found.model.examples.name)
        with self._platform.engine() as engine:
            rows = engine.reader(
                f"SELECT {columns} FROM {engine.scan(examples)} WHERE {present or 'true'} LIMIT 1"
            ).read_all()
        if rows.num_rows:
            predictor.score(rows, None)

    def _champion(self, model: str) -> int | None:
        asked, number = self._champions.get(model, (float("-inf"), 0))
        if time.monotonic() - asked > CHAMPION_MAX_AGE:
            version = versions.champion(self._platform, model)
            if version is None:
                return None
            number = version.number
            self._champions[model] = (time.monotonic(), number)
        return number

    def _number(self, model: str, version: str) -> int:
        if not version.isdigit():
            raise NotFound(f"Model {model!r} has no version {version!r}", hint="versions are numbers: 1, 2, 3 ...")
        return int(version)

    def _no_champion(self, model: str) -> NotFound:
        known = self._platform.store.models()
        if model in known:
            hint = f"promote a version: millpond deploy {model} VERSION"
            return NotFound(f"No version of model {model!r} serves", hint=hint)
        return NotFound(f"There is no model {model!r}", hint=did_you_mean(model, known, noun="models"))
