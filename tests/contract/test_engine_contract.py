"""What every engine must do: one suite, run against each adapter of the port."""

from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial

import narwhals as nw
import pyarrow as pa
import pytest

from millpond.core.errors import DataError, NotFound
from millpond.lake.iceberg import IcebergLake
from millpond.lake.sql_text import sql_text

AT = datetime(2013, 1, 1, 10, 0, 0, 123_457, tzinfo=UTC)
TYPES = {
    "truth": (pa.bool_(), [True, False, None]),
    "small": (pa.int32(), [-(2**31), 2**31 - 1, None]),
    "large": (pa.int64(), [-(2**63), 2**63 - 1, None]),
    "single": (pa.float32(), [1.5, -0.25, None]),
    "double": (pa.float64(), [1e300, 0.1, None]),
    "text": (pa.string(), ["", "it's \\ “ü” \n", None]),
    "day": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31), None]),
    "clock": (pa.time64("us"), [time(0, 0, 0, 1), time(23, 59, 59, 999_999), None]),
    "instant": (
        pa.timestamp("us", "UTC"),
        [datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), None],
    ),
    "exact": (pa.decimal128(9, 2), [Decimal("-1234567.89"), Decimal("0.01"), None]),
    "exactest": (pa.decimal128(38, 10), [Decimal("-1234567890123456789012345678.0123456789"), Decimal(0), None]),
    "bytes": (pa.binary(), [b"", b"\x00\xff", None]),
    "list": (pa.list_(pa.float64()), [[1.5, None], [], None]),
    "struct": (pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": None}, {"a": None, "b": "x"}, None]),
    "deep": (
        pa.list_(pa.struct([("at", pa.timestamp("us", "UTC")), ("tags", pa.list_(pa.string()))])),
        [[{"at": AT, "tags": ["x", None]}], [{"at": None, "tags": None}, None], None],
    ),
}


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.slow)])
def dialect(request):
    return request.param


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "a lake [1] {x} 50%")


@pytest.fixture
def engine(new_engine, dialect, lake):
    return new_engine(dialect, lake)


@pytest.fixture
def q(dialect):
    return sql_text(dialect).name


def read(engine, snapshot, columns="*"):
    return engine.rows(f"SELECT {columns} FROM {engine.scan(snapshot)} ORDER BY 1")


def all_types():
    rows = {"n": pa.array([1, 2, 3])} | {name: pa.array(values, type) for name, (type, values) in TYPES.items()}
    return pa.table(rows)


class TestScanning:
    def test_every_type_comes_back(self, lake, engine, q):
        relation = engine.scan(lake.append("t", all_types()))
        assert engine.schema(relation).names == ["n", *TYPES]
        found = engine.rows(f"SELECT {', '.join(map(q, TYPES))} FROM {relation} ORDER BY n")
        for (name, (_, values)), column in zip(TYPES.items(), zip(*found, strict=True), strict=True):
            assert list(column) == values, name

    def test_every_type_is_streamed(self, lake, engine, q):
        columns = ", ".join(map(q, TYPES))
        rows = engine.reader(
            f"SELECT {columns} FROM {engine.scan(lake.append('t', all_types()))} ORDER BY n"
        ).read_all()
        assert rows.to_pydict() == {name: values for name, (_, values) in TYPES.items()}
        types = {name: type for name, (type, _) in TYPES.items() if not pa.types.is_nested(type)}
        assert {name: rows.schema.field(name).type for name in types} == types

    def test_every_type_is_written_back(self, lake, engine):
        relation = engine.scan(lake.append("t", all_types()))
        copy = lake.overwrite("copy", engine.output(f"SELECT * FROM {relation}"))
        assert [(c.name, c.type) for c in copy.columns] == [(c.name, c.type) for c in lake.snapshot("t").columns]
        assert copy.rows == 3
        assert read(engine, copy) == read(engine, lake.snapshot("t"))

    def test_map(self, lake, engine):
        type = pa.map_(pa.string(), pa.int64())
        relation = engine.scan(lake.append("t", pa.table({"m": pa.array([[("a", 1), ("b", None)], [], None], type)})))
        copy = lake.overwrite("copy", engine.output(f"SELECT * FROM {relation}"))
        for each in (relation, engine.scan(copy)):
            assert engine.reader(f"SELECT m FROM {each}").read_all().column("m").to_pylist() == [
                [("a", 1), ("b", None)],
                [],
                None,
            ]

    def test_names_as_they_were_at_each_snapshot(self, lake, engine):
        first = lake.append("t", pa.table({"i": [1], "old": ["x"]}))
        second = lake.rename_column("t", "old", "new")
        third = lake.append("t", pa.table({"i": [2], "new": ["y"], "old": [2.5]}))
        assert first.column_names == ("i", "old")
        assert read(engine, first) == [(1, "x")]
        assert read(engine, second, "i, new") == [(1, "x")]
        assert read(engine, third, "i, new, old") == [(1, "x", None), (2, "y", 2.5)]
        assert engine.rows(f"SELECT i, new FROM {engine.scan(third)} WHERE old IS NULL") == [(1, "x")]
        assert engine.rows(f"SELECT i, old FROM {engine.scan(third)} WHERE new = 'y'") == [(2, 2.5)]

    def test_a_column_dropped_and_added_again_is_another(self, lake, engine):
        first = lake.overwrite("t", pa.table({"i": [1], "c": ["x"]}))
        lake.overwrite("t", pa.table({"i": [1]}))
        lake.overwrite("t", pa.table({"i": [1], "c": ["y"]}))
        last = lake.append("t", pa.table({"i": [2]}))
        assert read(engine, first) == [(1, "x")]
        assert read(engine, last, "i, c") == [(1, "y"), (2, None)]

    @pytest.mark.parametrize("nulls", [1, 5_000])
    def test_nulls_beside_one_value(self, lake, engine, nulls):
        values = {"s": "x", "b": b"x", "i": 1, "f": 0.5, "o": True, "d": date(2026, 1, 2), "t": AT}
        columns = {name: [value, *[None] * nulls] for name, value in values.items()}
        columns["n"] = [{"s": value, "i": 1 if value else None} for value in columns["s"]]
        columns["x"] = pa.array([b"ab", *[None] * nulls], pa.binary(2))
        snapshot = lake.append("t", pa.table({"number": range(nulls + 1), **columns}))
        for name in [*values, "n.s", "n.i", "x"]:
            counted = f"SELECT count(*), min(number) FROM {engine.scan(snapshot)} AS t WHERE t.{name} IS"
            assert engine.rows(f"{counted} NULL") == [(nulls, 1)], name
            assert engine.rows(f"{counted} NOT NULL") == [(1, 0)], name

    def test_names_that_change_places(self, lake, engine):
        lake.append("t", pa.table({"i": [1, 2], "a": ["x", "y"], "b": ["z", None]}))
        lake.rename_column("t", "a", "c")
        lake.rename_column("t", "b", "a")
        swapped = lake.rename_column("t", "c", "b")
        assert read(engine, swapped, "i, a, b") == [(1, "z", "x"), (2, None, "y")]
        assert engine.rows(f"SELECT i FROM {engine.scan(swapped)} WHERE a IS NULL") == [(2,)]
        assert engine.rows(f"SELECT i FROM {engine.scan(swapped)} WHERE b = 'x' AND a = 'z'") == [(1,)]

    def test_widened_types(self, lake, engine):
        first = lake.append("t", pa.table({"i": pa.array([1], pa.int32()), "f": pa.array([0.5], pa.float32())}))
        last = lake.append("t", pa.table({"i": pa.array([2**40]), "f": pa.array([1e300])}))
        assert read(engine, first) == [(1, 0.5)]
        assert read(engine, last) == [(1, 0.5), (2**40, 1e300)]

    def test_a_struct_that_grew_keeps_its_fields_apart(self, lake, engine):
        lake.append("t", pa.table({"i": [1], "s": [{"a": 1, "b": 2}]}))
        snapshot = lake.append("t", pa.table({"i": [2], "s": [{"a": 3, "b": 4}]}))
        assert [row[1] for row in read(engine, snapshot)] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]

    def test_empty_tables(self, lake, engine):
        empty = lake.append("t", all_types().slice(0, 0))
        assert read(engine, empty) == []
        rows = engine.reader(f"SELECT * FROM {engine.scan(empty)}").read_all()
        assert (rows.num_rows, rows.column_names) == (0, ["n", *TYPES])
        copy = lake.overwrite("copy", engine.output(f"SELECT * FROM {engine.scan(empty)}"))
        assert (copy.rows, copy.column_names) == (0, ("n", *TYPES))
        assert read(engine, lake.append("t", pa.table({"n": [1]})), "n, text") == [(1, None)]

    def test_what_is_gone_is_said(self, lake, engine):
        snapshot = lake.append("t", pa.table({"i": [1]}))
        for path in lake.warehouse.glob("*/t/data/*"):
            path.unlink()
        with pytest.raises(NotFound, match="gone"):
            read(engine, snapshot)
        lake.drop("t")
        with pytest.raises(NotFound):
            engine.scan(replace(snapshot, id=1))

    def test_delete_files_are_refused(self, lake, engine, monkeypatch):
        from pyiceberg.manifest import ManifestContent, ManifestFile

        snapshot = lake.append("t", pa.table({"i": [1]}))
        monkeypatch.setattr(ManifestFile, "content", property(lambda _: ManifestContent.DELETES))
        with pytest.raises(DataError, match="delete files"):
            engine.scan(snapshot)


class TestQueries:
    def test_instants_are_compared_and_cut_in_utc(self, lake, engine, dialect):
        relation = engine.scan(lake.append("t", pa.table({"seen": [AT, AT.replace(year=1955), None]})))
        bound = sql_text(dialect).value(AT)
        hits = f"SELECT count(*), min(EXTRACT(hour FROM seen)) FROM {relation} WHERE seen = {bound}"
        assert engine.rows(hits) == [(1, 10)]

    def test_integers_that_do_not_fit_are_refused(self, lake, engine):
        relation = engine.scan(lake.append("t", pa.table({"i": [2**63 - 1, 1]})))
        for run in (engine.rows, lambda sql: engine.reader(sql).read_all()):
            with pytest.raises(DataError):
                run(f"SELECT sum(i) AS s FROM {relation}")

    def test_streams_keep_order_and_let_other_queries_run(self, lake, engine):
        relation = engine.scan(lake.append("t", pa.table({"i": range(200_000)})))
        readers = [engine.reader(f"SELECT i FROM {relation} ORDER BY i {order}") for order in ("ASC", "DESC")]
        up, down = [], []
        for batch in readers[0]:
            up += batch.column(0).to_pylist()
            assert engine.rows(f"SELECT count(*) FROM {relation} WHERE i < 10") == [(10,)]
        for batch in readers[1]:
            assert batch.num_rows <= 65_536
            down += batch.column(0).to_pylist()
        assert up == list(range(200_000)) == down[::-1]

    def test_errors_are_in_the_users_terms(self, lake, engine):
        relation = engine.scan(lake.append("t", pa.table({"origin": ["JFK"], "temp": [1.0]})))
        cases = [
            (f"SELECT orign FROM {relation}", 'no column "orign"', "'origin'"),
            ("SELECT * FROM nowhere", 'no table "nowhere"', "inputs"),
            (f"SELEC origin FROM {relation}", "syntax error", ""),
            (f"SELECT CAST(origin AS INT) AS n FROM {relation}", "JFK", ""),
        ]
        for sql, says, hint in cases:
            for run in (
                engine.rows,
                lambda sql: engine.reader(sql).read_all(),
                partial(engine.materialize, "m"),
            ):
                with pytest.raises(DataError, match=f"(?i){says}") as caught:
                    run(sql)
                assert hint in caught.value.hint
                text = str(caught.value)
                assert len(text.splitlines()) <= 3
                assert not any(word in text for word in ("Exception", "org.apache", "SQLSTATE", "Traceback", "duckdb"))

    def test_registered_rows(self, engine):
        engine.register("r", pa.table({"a": [1]}))
        rows = {
            "b": pa.array(["x", "y"]).dictionary_encode(),
            "at": pa.array([AT, None], pa.timestamp("ns", "UTC")),
            "wall": pa.array([AT.replace(tzinfo=None), None], pa.timestamp("us")),
            "none": pa.nulls(2),
        }
        with engine.session():
            engine.register("r", pa.table(rows))
        wall = AT.replace(tzinfo=None)
        assert engine.rows("SELECT * FROM r ORDER BY b") == [("x", AT, wall, None), ("y", None, None, None)]

    def test_narwhals_there_and_back(self, lake, engine):
        relation = engine.scan(
            lake.append("t", pa.table({"i": [1, 2, 3], "seen": [AT, AT, None], "s": ["a", "b", None]}))
        )
        with engine.session():
            frame = engine.lazy(relation).filter(nw.col("i") > 1).with_columns(hour=nw.col("seen").dt.hour())
            joined = frame.join(engine.lazy(relation).select("i", twin="s"), on="i")
            back = engine.to_sql(joined)
            assert engine.rows(f"SELECT i, hour, twin FROM {back} AS q ORDER BY i") == [(2, 10, "b"), (3, None, None)]
            assert engine.reader(f"SELECT a.* FROM {back} AS a JOIN {back} AS b USING (i)").read_all().num_rows == 2
        with pytest.raises(DataError, match="not a query of the engine"):
            engine.to_sql(nw.from_native(pa.table({"a": [1]})).lazy())


class TestSessions:
    def test_a_session_drops_what_was_made_in_it(self, lake, engine):
        relation = engine.scan(lake.append("t", pa.table({"i": [1, 2]})))
        with engine.session():
            engine.execute("CREATE TEMP TABLE one AS SELECT 1 AS n")
            engine.execute("CREATE OR REPLACE TEMPORARY VIEW two AS SELECT * FROM one")
            engine.materialize("Odd Name", f"SELECT i, NULL AS nothing FROM {relation}")
            engine.register("kept", pa.table({"n": [5]}))
            with engine.session():
                engine.materialize("three", "SELECT 3 AS n")
                assert engine.rows("SELECT * FROM two, three") == [(1, 3)]
            assert engine.rows("SELECT * FROM two") == [(1,)]
            odd = sql_text(engine.dialect).name("Odd Name")
            assert engine.rows(f"SELECT count(*), count(nothing) FROM {odd}") == [(2, 0)]
        for name in ("one", "two", "three", odd):
            with pytest.raises(DataError, match="no table"):
                engine.rows(f"SELECT * FROM {name}")
        assert engine.rows("SELECT * FROM kept") == [(5,)]
        assert engine.rows(f"SELECT count(*) FROM {relation}") == [(2,)]

    def test_what_is_kept_is_computed_once(self, engine):
        random = "random()" if engine.dialect == "duckdb" else "rand()"
        with engine.session():
            engine.materialize("m", f"SELECT {random} AS r")
            assert engine.rows("SELECT r FROM m") == engine.rows("SELECT r FROM m")
            engine.materialize("m", "SELECT 7 AS r")
            assert engine.rows("SELECT r FROM m") == [(7,)]

    def test_a_session_ends_after_an_error(self, engine):
        with pytest.raises(DataError), engine.session():  # noqa: PT012
            engine.materialize("one", "SELECT 1 AS n")
            engine.execute("nonsense")
        with engine.session():
            engine.materialize("one", "SELECT 2 AS n")
            assert engine.rows("SELECT n FROM one") == [(2,)]

    def test_engines_do_not_see_each_others_relations(self, new_engine, dialect, lake, engine):
        other = new_engine(dialect, lake)
        with engine.session():
            engine.materialize("mine", "SELECT 1 AS n")
            with pytest.raises(DataError, match="no table"):
                other.rows("SELECT * FROM mine")


class TestWritingBack:
    def test_output_is_cleaned_and_finds_its_columns(self, lake, engine):
        first = lake.overwrite("t", pa.table({"i": [1, 2], "f": [0.5, 2.0]}))
        nan = "CAST('NaN' AS DOUBLE)"
        rows = engine.output(
            f"SELECT i + 1 AS i, CASE WHEN i = 1 THEN {nan} ELSE f END AS f, 'x' AS new, NULL AS n"
            f" FROM {engine.scan(first)}"
        )
        second = lake.overwrite("t", rows, properties={"why": "test"})
        assert read(engine, second) == [(2, None, "x", None), (3, 2.0, "x", None)]
        assert [c.field_id for c in second.columns[:2]] == [c.field_id for c in first.columns]
        assert second.properties["why"] == "test"
        third = lake.append("t", engine.output(f"SELECT i + 10 AS i FROM {engine.scan(second)}"))
        assert read(engine, third, "i, new") == [(2, "x"), (3, "x"), (12, None), (13, None)]
        fourth = lake.upsert("t", engine.output(f"SELECT i, 'y' AS new FROM {engine.scan(third)} WHERE i > 10"), ["i"])
        assert read(engine, fourth, "i, new") == [(2, "x"), (3, "x"), (12, "y"), (13, "y")]

    def test_a_write_that_fails_leaves_no_file_and_no_snapshot(self, lake, engine):
        snapshot = lake.overwrite("t", pa.table({"i": range(1000), "s": ["x"] * 1000}))
        before = set(lake.warehouse.glob("*/*/data/*"))
        bad = "CAST(CASE WHEN i = 999 THEN s ELSE '1' END AS INT)"
        with pytest.raises(DataError):
            lake.overwrite("t", engine.output(f"SELECT {bad} AS i FROM {engine.scan(snapshot)}"))
        with pytest.raises(DataError, match="key"):
            lake.upsert("t", engine.output(f"SELECT 1 AS i FROM {engine.scan(snapshot)}"), ["i"])
        assert set(lake.warehouse.glob("*/*/data/*")) == before
        assert lake.snapshot("t") == snapshot
