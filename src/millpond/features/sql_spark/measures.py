"""What is kept of rows so that a feature can be put together from parts of its window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.features.plan import Feature, SourceColumn, ViewPlan

_HALF = 2**32


@dataclass(frozen=True)
class Measure:
    """One thing kept of rows.

    Attributes:
        name: Its column.
        of_rows: Makes it from rows; `{over}` stands where an OVER may follow each aggregate.
        merge: Makes one of several; `{}` stands for the column.
    """

    name: str
    of_rows: str
    merge: str


def measures(plan: ViewPlan, features: Sequence[Feature]) -> list[Measure]:
    """What is kept for features over the same window, without `nunique`."""
    found: dict[str, Measure] = {}
    for feature in features:
        for measure in _measures(plan, feature, features):
            found.setdefault(measure.name, measure)
    return list(found.values())


def running(kept: Sequence[Measure], over: str) -> str:
    """The measures of rows as one struct; `over` is what follows each aggregate, such as "OVER w"."""
    return "named_struct(" + ", ".join(f"'{each.name}', {each.of_rows.format(over=over)}" for each in kept) + ")"


def value(plan: ViewPlan, feature: Feature, prefix: str) -> str:
    """A feature's value, from measures that are columns under their names after `prefix`."""
    slot, column = feature.slot, feature.column
    if feature.kind == "count":
        return f"{prefix}n_{slot}"
    if feature.kind in ("min", "max"):
        return f"{prefix}{feature.kind}_{slot}"
    if feature.kind in ("first", "latest"):
        picked = f"{prefix}{_pick_name(plan, feature)}"
        if feature.within is not None and plan.time is not None:
            return f"CASE WHEN {picked}.us >= {prefix}at - {feature.within} THEN {picked}.{slot} END"
        return f"{picked}.{slot}"
    if feature.kind == "std":
        spread = f"{prefix}std_{slot}"
        return f"CASE WHEN {spread}.n > 1 THEN sqrt({spread}.squares / ({spread}.n - 1)) END"
    assert column is not None
    total = f"{prefix}sum_{slot}"
    if _is_wide(column):
        total = f"(CAST({prefix}high_{slot} AS DECIMAL(38, 0)) * {_HALF} + {prefix}low_{slot})"
    if feature.kind == "mean":
        return f"CAST({total} AS DOUBLE) / nullif({prefix}n_{slot}, 0)"
    return total if feature.is_integer_sum else f"CAST({total} AS DOUBLE)"


def _is_wide(column: SourceColumn) -> bool:
    """Whether a sum of it may pass 64 bits on its way."""
    return column.type == "long"


def _measures(plan: ViewPlan, feature: Feature, together: Sequence[Feature]) -> list[Measure]:
    slot, column = feature.slot, feature.column
    count = Measure(f"n_{slot}", f"count({slot}) {{over}}", "sum({})")
    if column is None or feature.kind == "count":
        return [count]
    if feature.kind in ("min", "max"):
        return [Measure(f"{feature.kind}_{slot}", f"{feature.kind}({slot}) {{over}}", f"{feature.kind}({{}})")]
    if feature.kind in ("first", "latest"):
        instant = Measure("at", "us", "max({})")  # of the point itself: its row ends the frame
        return [_pick(plan, feature, together), *([instant] if feature.within is not None and plan.time else [])]
    if feature.kind == "std":
        return [_spread(slot)]
    if _is_wide(column):  # in halves, as neither of their sums can pass 64 bits
        sums = [
            Measure(f"high_{slot}", f"sum(shiftright({slot}, 32)) {{over}}", "sum({})"),
            Measure(f"low_{slot}", f"sum({slot} & {_HALF - 1}) {{over}}", "sum({})"),
        ]
    else:
        type_ = "BIGINT" if feature.column and column.kind in ("integer", "boolean") else "DOUBLE"
        summand = slot if column.kind == "decimal" and column.exact else f"CAST({slot} AS {type_})"
        sums = [Measure(f"sum_{slot}", f"sum({summand}) {{over}}", "sum({})")]
    return [count, *sums] if feature.kind == "mean" else sums


def _spread(slot: str) -> Measure:
    """Number, mean, and squares of the differences from the mean; merged after Chan, Golub and LeVeque (1979)."""
    number = f"CAST({slot} AS DOUBLE)"
    parts = [
        f"'n', CAST(count({slot}) {{over}} AS DOUBLE)",
        f"'mean', coalesce(avg({number}) {{over}}, 0D)",
        f"'squares', coalesce(var_pop({number}) {{over}} * count({slot}) {{over}}, 0D)",
    ]
    n, apart = "(a.n + b.n)", "(b.mean - a.mean)"
    merged = f"""CASE WHEN b.n = 0 THEN a WHEN a.n = 0 THEN b ELSE named_struct(
        'n', {n}, 'mean', a.mean + {apart} * b.n / {n},
        'squares', a.squares + b.squares + {apart} * {apart} * a.n * b.n / {n}) END"""
    nothing = "named_struct('n', 0D, 'mean', 0D, 'squares', 0D)"
    return Measure(
        f"std_{slot}",
        f"named_struct({', '.join(parts)})",
        f"aggregate(collect_list({{}}), {nothing}, (a, b) -> {merged})",
    )


def _pick_name(plan: ViewPlan, feature: Feature) -> str:
    return feature.kind if plan.row_keys else f"{feature.kind}_{feature.slot}"


def _pick(plan: ViewPlan, feature: Feature, together: Sequence[Feature]) -> Measure:
    """The greatest, or least, row in the order of ties. Without a key each feature takes its own value among ties."""
    best = "max" if feature.kind == "latest" else "min"
    order = ["us"] * (plan.time is not None) + ["kn"] * (plan.known is not None)
    order += [f"k{index}" for index in range(len(plan.row_keys))]
    if plan.row_keys:
        columns = sorted({each.slot for each in together if each.kind == feature.kind})
    elif feature.kind == "first":  # null is the least, and loses
        columns = [f"{feature.slot} IS NULL AS missing", feature.slot]
    else:
        columns = [feature.slot]
    row = f"CASE WHEN r = 1 THEN struct({', '.join([*order, *columns])}) END"
    return Measure(_pick_name(plan, feature), f"{best}({row}) {{over}}", f"{best}({{}})")
