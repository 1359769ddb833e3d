"""What runs a version's model for who waits: its compiled plan, else its estimator in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from millpond.core.errors import MillpondError, NotFound
from millpond.platform import versions
from millpond.platform.progress import step
from millpond.platform.tiers import PLAN, tier_of
from millpond.serving.ports import OUTPUT, ServedModel
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.platform.platform import Platform
    from millpond.platform.versions import LoadedVersion
    from millpond.registry.ports import Version
    from millpond.serving.rows import Column


#: Rows that are run at once: as much as keeps a native process' frames small.
RUN_ROWS = 16_384


class _Model(Protocol):
    def __call__(self, inputs: Rows) -> Mapping[str, Column]: ...


@dataclass(frozen=True)
class VersionRuntime:
    """Implements `serving.ports.Runtime`: runs a version as the servers run it. Used by one thread.

    Attributes:
        served: The version.
        tier: Which of the two it is.
    """

    served: ServedModel
    tier: Literal["compiled", "native"]
    _model: _Model

    def predict(self, inputs: pa.Table) -> Mapping[str, Column]:
        """See `serving.ports.Runtime`."""
        rows = Rows.from_arrow(inputs)
        try:
            outputs = self._model(rows)
        except MillpondError:
            raise
        except Exception as error:
            what = f"{_name(self.served)} failed: {type(error).__name__}: {error}"
            raise MillpondError(
                what, where=_name(self.served), hint="retrain, or score with another version"
            ) from error
        if self.served.outputs == (OUTPUT,):
            _refuse_no_numbers(self.served, outputs[OUTPUT.name], rows.count)
        return outputs


@contextmanager
def open_runtime(platform: Platform, loaded: LoadedVersion) -> Iterator[VersionRuntime]:
    """What serves the version, for the length of a block: the plan, or a process in the version's environment.

    A plan that this release cannot read is told to the listener, and the estimator runs instead, as in serving.

    Raises:
        NotFound: The version's files are missing.
        Unavailable: Its environment cannot be built, or its model cannot be loaded.
    """
    plan = _plan(platform, loaded)
    if plan is not None:
        yield VersionRuntime(loaded.served, "compiled", plan.predict)
        return
    from millpond.serving.lanes.client import BlockingProcess
    from millpond.serving.lanes.command import native_command
    from millpond.serving.lanes.environments import environment_for, needs_of

    if not (loaded.directory / "MLmodel").is_file():
        raise NotFound(f"The files of {loaded.version} are missing", where=str(loaded.directory))
    served, settings = loaded.served, platform.settings
    needs = needs_of(loaded.directory)
    interpreter = environment_for(needs.requirements, needs.python, settings.state / "environments")
    command = native_command(interpreter, loaded.directory, served)
    log = settings.logs / f"model-{served.model}-{served.version}.log"
    with BlockingProcess(command, name=_name(served), log=log) as process:
        yield VersionRuntime(served, "native", lambda rows: process.call(rows).columns)


def scorer(
    platform: Platform, version: Version, inputs: Mapping[str, str]
) -> Callable[[pa.Table], Sequence[float]] | None:
    """A function from raw inputs to the outputs of a trained version; None where it needs others than these.

    The function opens what runs the version, and closes it again; it raises as `open_runtime` and `predict` do.
    """
    loaded = versions.load(platform, version)
    needed = loaded.served.inputs
    if any(inputs.get(name) != kind for name, kind in needed.items()):
        return None

    def predict(rows: pa.Table) -> list[float]:
        given, found = rows.select(list(needed)), list[float]()
        with open_runtime(platform, loaded) as runtime:
            for start in range(0, given.num_rows, RUN_ROWS):
                found += runtime.predict(given.slice(start, RUN_ROWS))[OUTPUT.name]
        return found

    return predict


def _plan(platform: Platform, loaded: LoadedVersion) -> Any:
    if tier_of(platform, loaded.version).tier != "compiled":
        return None
    from millpond.serving.plans.store import load_plan

    try:
        return load_plan(loaded.directory / "millpond" / PLAN)
    except MillpondError as error:
        with step(platform.listener, f"open {loaded.version}") as current:
            current.detail = f"natively: {error.what}"
        return None


def _refuse_no_numbers(served: ServedModel, output: Any, count: int) -> None:
    import numpy as np

    values = np.asarray(output, dtype=np.float64)
    if values.shape != (count,):
        what = f"{_name(served)} gave values of shape {values.shape} for {count} rows"
        raise MillpondError(what, where=_name(served), hint="look at the estimator's predict method")
    strange = ~np.isfinite(values)
    if strange.any():
        row = int(strange.argmax())
        raise MillpondError(
            f"{_name(served)} answered {values[row]} in row {row}, which is no finite number",
            where=_name(served),
            hint="look at the inputs of that row; retrain, or score with another version",
        )


def _name(served: ServedModel) -> str:
    return f"version {served.version} of model {served.model!r}"
