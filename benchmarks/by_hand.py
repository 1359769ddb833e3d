"""The windows of `benchmarks.feature_store` in the best SQL that is known to the authors, by hand.

Each takes an engine with the relations `events` and `examples`, and returns a query with one row an example.
"""

from __future__ import annotations

from benchmarks.training_set import WINDOWS, FileEngine

_HOUR = 3_600_000_000
_SIZES = {over: seconds * 1_000_000 for over, seconds in WINDOWS.items()}


def sums_and_tiles(engine: FileEngine) -> str:
    """Running sums for what can be subtracted, tiles for the greatest."""
    engine.execute(f"CREATE TEMP TABLE summed AS {_running_sums()}")
    return f"SELECT * FROM summed JOIN ({_greatest_by_tiles(engine)}) USING (example)"


def sums_and_frames(engine: FileEngine) -> str:
    """Running sums for what can be subtracted, a frame a window for the greatest."""
    engine.execute(f"CREATE TEMP TABLE summed AS {_running_sums()}")
    frames = ", ".join(
        f"w_{over} AS (PARTITION BY account ORDER BY us RANGE BETWEEN {size} PRECEDING AND 1 PRECEDING)"
        for over, size in _SIZES.items()
    )
    greatest = ", ".join(f"max(amount) OVER w_{over} AS v__top_{over}" for over in _SIZES)
    return f"""
        WITH mixed AS (
            SELECT account, epoch_us(ts) AS us, amount, NULL::BIGINT AS example FROM events
            UNION ALL SELECT account, epoch_us(asked), NULL, example FROM examples),
        framed AS (SELECT example, {greatest} FROM mixed WINDOW {frames})
        SELECT * FROM summed JOIN (SELECT * FROM framed WHERE example IS NOT NULL) USING (example)"""


def _running_sums() -> str:
    """Counts, sums and means as differences of running sums over one relation of events, instants and window starts.

    Whoever writes this knows that amounts are whole cents: a difference of floating sums would not be exact.
    """
    starts = ", ".join(f"('{over}', {size}::BIGINT)" for over, size in {**_SIZES, "": 0}.items())
    sums = {"n": "n", "na": "na", "cents": "cents", "amounts": "amounts"}
    pivoted = ", ".join(
        f"max({name}) FILTER (WHERE k = '{over}') AS {name}_{over}" for name in sums for over in (*_SIZES, "")
    )
    features = ", ".join(
        f"n_ - n_{over} AS v__n_{over}, CASE WHEN na_ > na_{over} THEN cents_ - cents_{over} END AS v__cents_{over}, "
        f"CASE WHEN na_ > na_{over} THEN (amounts_ - amounts_{over}) / 100.0 / (na_ - na_{over}) END AS v__mean_{over}"
        for over in _SIZES
    )
    return f"""
        WITH mixed AS (
            SELECT account, epoch_us(ts) AS us, 1 AS event, (amount IS NOT NULL)::INT AS na,
                coalesce(cents, 0) AS cents, coalesce(round(amount * 100)::BIGINT, 0) AS amounts,
                NULL::BIGINT AS example, NULL AS k FROM events
            UNION ALL SELECT account, epoch_us(asked) - size, 0, 0, 0, 0, example, k
            FROM examples, (VALUES {starts}) AS s (k, size)),
        running AS (
            SELECT example, k, sum(event) OVER w AS n, sum(na) OVER w AS na, sum(cents) OVER w AS cents,
                sum(amounts) OVER w AS amounts
            FROM mixed WINDOW w AS (PARTITION BY account ORDER BY us, event ROWS UNBOUNDED PRECEDING)),
        wide AS (SELECT example, {pivoted} FROM running WHERE example IS NOT NULL GROUP BY example)
        SELECT example, n_ AS v__n, {features} FROM wide"""


def _greatest_by_tiles(engine: FileEngine) -> str:
    engine.execute(f"""
        CREATE TEMP TABLE ev AS
        SELECT account, epoch_us(ts) AS us, epoch_us(ts) // {_HOUR} AS h, amount
        FROM events WHERE amount IS NOT NULL""")
    engine.execute(
        "CREATE TEMP TABLE hours AS SELECT account, h, h // 24 AS d, max(amount) AS top FROM ev GROUP BY ALL"
    )
    engine.execute("CREATE TEMP TABLE days AS SELECT account, d, max(top) AS top FROM hours GROUP BY ALL")
    starts = ", ".join(f"('{over}', {size}::BIGINT)" for over, size in _SIZES.items())
    pivoted = ", ".join(f"max(top) FILTER (WHERE k = '{over}') AS v__top_{over}" for over in _SIZES)
    return f"""
        WITH w AS (
            SELECT example, account, epoch_us(asked) AS us, epoch_us(asked) - size AS lo, k
            FROM examples, (VALUES {starts}) AS s (k, size)),
        parts AS (
            SELECT example, k, amount AS top
            FROM (SELECT *, unnest(list_distinct([us // {_HOUR}, lo // {_HOUR}])) AS b FROM w) w
            JOIN ev e ON e.account = w.account AND e.h = w.b AND e.us >= w.lo AND e.us < w.us
            UNION ALL SELECT example, k, top
            FROM (SELECT *, unnest(list_distinct([us // {_HOUR} // 24, lo // {_HOUR} // 24])) AS b FROM w) w
            JOIN hours t ON t.account = w.account AND t.d = w.b AND t.h > w.lo // {_HOUR} AND t.h < w.us // {_HOUR}
            UNION ALL SELECT example, k, top
            FROM (SELECT *, unnest(range(lo // {_HOUR} // 24 + 1, us // {_HOUR} // 24)) AS b FROM w) w
            JOIN days t ON t.account = w.account AND t.d = w.b)
        SELECT example, {pivoted} FROM examples LEFT JOIN parts USING (example) GROUP BY example"""
