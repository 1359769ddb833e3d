"""Which runtime serves a version: a compiled plan that was proven equal to its estimator, or the estimator itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from millpond.core.errors import MillpondError

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.platform.platform import Platform
    from millpond.registry.ports import Version

#: Where a version's plan lies: below `millpond/` in its directory.
PLAN = "plan"
#: Rows of the training set that a plan is proven on, beside their mutations.
SAMPLE_ROWS = 2_000


@dataclass(frozen=True)
class Tier:
    """How a version is served, and why so.

    Attributes:
        tier: "compiled" or "native".
        why: What was compiled and compared, or why there is no plan.
        rows: Rows that plan and estimator were compared on.
        largest_difference: The largest relative difference of two outputs; 0.0 is equal to the last bit; None where
            nothing was compared, or one of the two outputs was no number.
        tolerance: The largest that was allowed; None where nothing was compared.
    """

    tier: Literal["compiled", "native"]
    why: str
    rows: int = 0
    largest_difference: float | None = None
    tolerance: float | None = None


def prepare(
    estimator: Any,
    inputs: Mapping[str, str],
    task: str,
    sample: pa.Table,
    original: Callable[[pa.Table], Sequence[float]],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Compile an estimator and prove the plan; never raises for either.

    Args:
        estimator: Fitted; see `compile_plan`.
        inputs: Raw inputs in order: name -> type.
        task: "classification" or "regression".
        sample: Some thousand real rows of the inputs, with their nulls.
        original: The estimator's outputs of such rows.

    Returns:
        The version's further files (those of the plan; none where there is no plan), path below `millpond/` ->
        content; and the record for the version's spec, from which `tier_of` reads the tier.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    try:
        with threadpool_limits(limits=1):  # batches are small: threads would only wait for each other
            files, tier = _proven(estimator, inputs, task, sample, original)
    except MillpondError as error:
        files, tier = {}, Tier("native", error.what)
    except Exception as error:  # whatever a library's other release does: the estimator itself still serves
        files, tier = (
            {},
            Tier("native", f"compiling {type(estimator).__name__} failed: {type(error).__name__}: {error}"),
        )
    return files, asdict(tier)


def _proven(
    estimator: Any,
    inputs: Mapping[str, str],
    task: str,
    sample: pa.Table,
    original: Callable[[pa.Table], Sequence[float]],
) -> tuple[dict[str, bytes], Tier]:
    from millpond.serving.plans.compiling import compile_plan
    from millpond.serving.plans.mutations import arrow_schema
    from millpond.serving.plans.plan import with_background
    from millpond.serving.plans.store import to_files
    from millpond.serving.plans.verify import verify_plan
    from millpond.serving.rows import Rows

    plan = compile_plan(estimator, inputs, task)
    rows = sample.select(list(inputs)).cast(arrow_schema(inputs), safe=False)
    plan = with_background(plan, Rows.from_arrow(rows))
    verdict = verify_plan(plan, original, rows)
    difference = verdict.largest_difference if math.isfinite(verdict.largest_difference) else None
    measured = (verdict.rows, difference, verdict.tolerance)
    if not verdict.equal:
        return {}, Tier("native", f"the plan is not equal to the estimator: {verdict.reason}", *measured)
    files = {f"{PLAN}/{name}": content for name, content in to_files(plan).items()}
    return files, Tier("compiled", f"{plan.described.about}, {verdict.reason}", *measured)


def tier_of(platform: Platform, version: Version) -> Tier:
    """The tier of a version, as it was recorded when the version was made."""
    found = platform.store.spec(version).get("tier")
    return Tier("native", "it was registered before there were plans") if found is None else Tier(**found)
