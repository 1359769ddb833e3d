"""Features as of an instant: the one join behind training sets, batch scoring, receipts and the online store."""

from __future__ import annotations

from collections.abc import Sequence

from millpond.core.errors import DefinitionError, SettingsError
from millpond.core.names import did_you_mean
from millpond.features.assembly import Dialect, assemble
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.features.sql_duckdb.join import DuckDBDialect
from millpond.features.sql_spark.join import SparkDialect
from millpond.lake.ports import Engine

_DIALECTS: dict[str, Dialect] = {"duckdb": DuckDBDialect(), "spark": SparkDialect()}


def dialect_of(engine: Engine) -> Dialect:
    """How the engine computes.

    Raises:
        SettingsError: No dialect is known for the engine.
    """
    if engine.dialect not in _DIALECTS:
        raise SettingsError(
            f"There are no point-in-time joins for the engine {engine.dialect!r}",
            hint=did_you_mean(engine.dialect, _DIALECTS, noun="engines"),
        )
    return _DIALECTS[engine.dialect]


def join_features(engine: Engine, spine: str, at: str | None, views: Sequence[PinnedView]) -> str:
    """Join the features of `views` to the rows of `spine`, each as of the row's own instant.

    A row of a view's table is visible at `t` when its event `time < t` and its `known < t`; a row whose time or
    known is null never is. A window `over` is `[t - over, t)` on the event time. A view with `every` is computed at
    the last point `<= t` of the grid through 1970-01-01T00:00:00Z. A spine row with a null in an entity's key, or a
    null instant, sees no row. All rows of a table without time are visible always.

    Aggregates skip nulls. Over nothing, count and nunique are 0 and everything else is null. `latest` is the row
    with the greatest (time, known, key columns in order), `first` that with the least; their value may be null.
    Where rows agree in all of these, as they may in a table without a key, each feature takes the greatest
    (`first`: the least) non-null value among them.

    Types: count, nunique and sums of integers and booleans are int64; other sums, mean and std float64; min, max,
    first and latest have the column's type. Integers and decimals are summed exactly. Floats are never computed as
    a difference of running sums.

    Everything is computed in the engine, in memory bounded by it. Call this within `engine.session()`; the relation
    ends with the session.

    Args:
        engine: Runs the queries.
        spine: A relation, for use after FROM; read once.
        at: Its column with the instants (timestamp with time zone); may be None where no view has a time.
        views: The views, each name once.

    Returns:
        A relation, for use after FROM: all columns of the spine and one `{view}__{feature}` for each feature, one
        row for each row of the spine, duplicates kept, in no particular order.

    Raises:
        DefinitionError: A view is given twice, `at` is missing, or a feature has the name of a spine column.
        SchemaMismatch: A column is missing, or has a type that its use does not allow.
        DataError: A sum of integers does not fit into 64 bits.
    """
    plans = plan_views(views)
    timed = [plan.view for plan in plans if plan.time is not None]
    if at is None and timed:
        raise DefinitionError(
            f"The examples have no instant, but feature view {timed[0]!r} is told by time",
            hint="name the column with the instant of prediction: Model(at=...)",
        )
    return assemble(dialect_of(engine), engine, spine, at, plans)
