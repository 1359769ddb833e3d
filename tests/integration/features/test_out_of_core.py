"""The join stays within the engine's memory: what does not fit is spilled, and the result is the same."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import millpond as mp
from millpond.features.point_in_time import join_features
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

_ENGINE = Path(__file__).parents[2] / "property" / "features" / "memory_engine.py"
_EVENTS, _EXAMPLES = 3_000_000, 200_000
_TYPES = {
    "id": "long",
    "account": "long",
    "ts": "timestamptz",
    "known": "timestamptz",
    "amount": "double",
    "name": "string",
}


def _engine(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("features_integration_memory_engine", _ENGINE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    class FileEngine(module.MemoryEngine):
        def scan(self, snapshot: Snapshot) -> str:
            return f"read_parquet('{folder / snapshot.table}.parquet')"

    engine = FileEngine()
    engine.execute(f"SET temp_directory = '{folder / 'spill'}'")
    return engine


@pytest.mark.slow
def test_a_join_larger_than_memory_is_spilled_and_exact(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    engine.execute(f"""
        COPY (SELECT i AS id, hash(i) % 20000 AS account, (i % 97)::DOUBLE / 8 AS amount, 'name ' || i AS name,
              make_timestamptz((i * 7919 % 5000000) * 1000000) AS ts,
              make_timestamptz((i * 7919 % 5000000 + CASE WHEN i % 9 = 0 THEN i % 90000 ELSE 0 END) * 1000000) AS known
              FROM range({_EVENTS}) t(i)) TO '{tmp_path / "events.parquet"}' (FORMAT parquet)""")
    engine.execute(f"""
        COPY (SELECT i AS example, hash(i * 3) % 20000 AS account,
              make_timestamptz((i * 104729 % 5000000) * 1000000) AS moment
              FROM range({_EXAMPLES}) t(i)) TO '{tmp_path / "examples.parquet"}' (FORMAT parquet)""")
    engine.execute("SET memory_limit = '160MB'")
    view = mp.Features(
        "v",
        entity=mp.Entity("account", key="account"),
        source=mp.Table("events", key="id", time="ts", known="known"),
        n=mp.count(over="10d"),
        total=mp.sum("amount", over="10d"),
        top=mp.max("amount"),
        last=mp.latest("name"),
        names=mp.nunique("amount"),
    )
    columns = tuple(Column(name, type_) for name, type_ in _TYPES.items())
    snapshot = Snapshot("events", 1, datetime.now(UTC), _EVENTS, columns)
    with engine.session():
        spine = f"read_parquet('{tmp_path / 'examples.parquet'}')"
        relation = join_features(engine, spine, "moment", [PinnedView(view, snapshot)])
        joined = f"read_parquet('{tmp_path / 'joined.parquet'}')"
        engine.execute(f"COPY (SELECT * FROM {relation}) TO '{tmp_path / 'joined.parquet'}' (FORMAT parquet)")
        assert engine.rows("SELECT count(*) > 0 FROM duckdb_temporary_files()") == [(True,)]
    assert engine.rows(f"SELECT count(*), count(DISTINCT example) FROM {joined}") == [(_EXAMPLES, _EXAMPLES)]
    engine.execute("SET memory_limit = '2GB'")
    sample = f"(SELECT * FROM {joined} WHERE example % 997 = 0)"
    wrong = engine.rows(f"""
        WITH seen AS (
            SELECT j.example, e.*, e.ts >= j.moment - INTERVAL '10 days' AS inside FROM {sample} j
            JOIN {engine.scan(snapshot)} e ON e.account = j.account AND e.ts < j.moment AND e.known < j.moment),
        plain AS (
            SELECT example, count(*) FILTER (WHERE inside) AS n, sum(amount) FILTER (WHERE inside) AS total,
                max(amount) AS top, arg_max(name, (ts, known, id)) AS last, count(DISTINCT amount) AS names
            FROM seen GROUP BY example)
        SELECT count(*) FROM {sample} j LEFT JOIN plain p USING (example)
        WHERE j.v__n <> coalesce(p.n, 0) OR j.v__top IS DISTINCT FROM p.top OR j.v__last IS DISTINCT FROM p.last
            OR j.v__names <> coalesce(p.names, 0)
            OR NOT coalesce(abs(j.v__total - p.total) <= 1e-9 * p.total, j.v__total IS NULL AND p.total IS NULL)""")
    assert wrong == [(0,)]
    engine.close()
