"""What every lake must do: one suite, run against each adapter of the port."""

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from millpond.core.errors import DataError, NotFound, SchemaMismatch
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake

T0 = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=[IcebergLake])
def lake(request, tmp_path):
    return request.param(tmp_path / "lake")


@pytest.fixture
def engine(lake):
    engine = DuckDBEngine(lake, threads=1)
    yield engine
    engine.close()


def read(engine, snapshot, order="1"):
    return engine.rows(f"SELECT * FROM {engine.scan(snapshot)} ORDER BY {order}")


def stream(table, rows=2):
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows))


class TestWriting:
    def test_the_first_write_makes_the_table(self, lake, engine):
        assert lake.tables() == []
        assert not lake.exists("a")
        snapshot = lake.append("a", pa.table({"i": [1, 2]}))
        assert (snapshot.table, snapshot.rows, snapshot.operation) == ("a", 2, "append")
        assert [(c.name, c.type, c.field_id) for c in snapshot.columns] == [("i", "long", 1)]
        assert lake.snapshot("a") == snapshot
        assert lake.tables() == ["a"]
        assert read(engine, snapshot) == [(1,), (2,)]

    def test_append_adds(self, lake, engine):
        lake.append("a", pa.table({"i": [1]}))
        assert read(engine, lake.append("a", stream(pa.table({"i": [2, 3, 4]})))) == [(1,), (2,), (3,), (4,)]

    def test_overwrite_replaces_rows_and_columns(self, lake, engine):
        first = lake.overwrite("a", pa.table({"i": [1], "gone": ["x"]}))
        second = lake.overwrite("a", pa.table({"new": [1.5], "i": [7]}))
        assert second.column_names == ("new", "i")
        assert read(engine, second) == [(1.5, 7)]
        assert read(engine, first) == [(1, "x")]
        assert [each.id for each in lake.history("a")] == [first.id, second.id]

    def test_overwrite_may_change_a_type(self, lake, engine):
        first = lake.overwrite("a", pa.table({"i": [1]}))
        second = lake.overwrite("a", pa.table({"i": ["x"]}))
        third = lake.overwrite("a", pa.table({"i": pa.array([3], pa.int32())}))
        assert [read(engine, each) for each in (first, second, third)] == [[(1,)], [("x",)], [(3,)]]

    def test_upsert_replaces_by_key_and_adds(self, lake, engine):
        lake.append("a", pa.table({"k": [1, 2, 3], "v": ["a", "b", "c"]}))
        assert lake.upsert("a", pa.table({"v": ["B", "d"], "k": [2, 4]}), ["k"]).rows == 4
        assert read(engine, lake.snapshot("a")) == [(1, "a"), (2, "B"), (3, "c"), (4, "d")]

    def test_upsert_by_two_columns_into_a_new_table(self, lake, engine):
        rows = pa.table({"a": [1, 1], "b": [1, 2], "v": [1, 2]})
        lake.upsert("t", rows, ["a", "b"])
        lake.upsert("t", stream(pa.table({"a": [1], "b": [2], "v": [9]})), ["a", "b"])
        assert read(engine, lake.snapshot("t"), "1, 2") == [(1, 1, 1), (1, 2, 9)]

    def test_upsert_leaves_files_without_the_keys_alone(self, lake):
        first = lake.append("a", pa.table({"k": [1, 2]}))
        lake.append("a", pa.table({"k": [3, 4]}))
        after = lake.upsert("a", pa.table({"k": [3]}), ["k"])
        assert set(lake.plan(first).files) <= set(lake.plan(after).files)

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ([1, 1, 2, 2, 2], "2 keys .k. occur more than once: k=1 .2 times.; k=2 .3 times."),
            ([1, None], "null in 1 of 2"),
        ],
    )
    def test_upsert_refuses_repeated_and_null_keys(self, lake, keys, says):
        with pytest.raises(DataError, match=says):
            lake.upsert("a", pa.table({"k": keys}), ["k"])
        assert not lake.exists("a")

    def test_upsert_needs_its_key_columns(self, lake):
        with pytest.raises(DataError, match="no key column") as caught:
            lake.upsert("a", pa.table({"key": [1]}), ["kye"])
        assert "did you mean 'key'" in caught.value.hint

    def test_no_rows_make_an_empty_table_with_types(self, lake, engine):
        rows = pa.table({"i": pa.array([], pa.int64()), "t": pa.array([], pa.timestamp("us", "UTC"))})
        snapshot = lake.overwrite("a", rows)
        assert snapshot.rows == 0
        reader = engine.reader(f"SELECT * FROM {engine.scan(snapshot)}")
        assert [str(type) for type in reader.schema.types] == ["int64", "timestamp[us, tz=UTC]"]
        assert reader.read_all().num_rows == 0
        assert lake.upsert("a", pa.table({"i": [1]}), ["i"]).rows == 1

    def test_properties_are_kept(self, lake):
        lake.append("a", pa.table({"i": [1]}), properties={"digest": "abc", "note": "é\n"})
        assert lake.snapshot("a").properties == {"digest": "abc", "note": "é\n"}

    def test_a_token_writes_once(self, lake):
        first = lake.append("a", pa.table({"i": [1]}), token="t1")
        lake.append("a", pa.table({"i": [2]}), token="t2")
        assert lake.append("a", pa.table({"i": [1]}), token="t1") == first
        assert lake.snapshot("a").rows == 2
        assert lake.overwrite("b", pa.table({"i": [1]}), token="t1").rows == 1

    def test_a_failing_stream_writes_nothing(self, lake):
        def batches():
            yield pa.record_batch({"i": [1]})
            raise ValueError("the source broke")

        before = lake.append("a", pa.table({"i": [0]}))
        files = set((lake.root / "warehouse").rglob("*"))
        with pytest.raises(ValueError, match="the source broke"):
            lake.append("a", pa.RecordBatchReader.from_batches(pa.schema([("i", pa.int64())]), batches()))
        assert lake.snapshot("a") == before
        assert set((lake.root / "warehouse").rglob("*")) == files

    def test_names(self, lake):
        lake.append("millpond.b", pa.table({"i": [1]}))
        lake.append("b", pa.table({"i": [1, 2]}))
        assert lake.tables() == ["b", "millpond.b"]
        assert lake.snapshot("millpond.b").rows == 1
        for name in ("A", "a.b.c", "../x", "", "a__b"):
            with pytest.raises(DataError, match="cannot name a table"):
                lake.append(name, pa.table({"i": [1]}))

    def test_drop(self, lake, engine):
        lake.append("a", pa.table({"i": [1]}), token="t")
        lake.drop("a")
        assert not lake.exists("a")
        with pytest.raises(NotFound):
            lake.drop("a")
        assert read(engine, lake.append("a", pa.table({"x": ["new"]}), token="t")) == [("new",)]


class TestValues:
    def test_nan_becomes_null_everywhere(self, lake, engine):
        nan = float("nan")
        rows = pa.table(
            {
                "x": [1.0, nan, None],
                "f": pa.array([nan, 2.0, None], pa.float32()),
                "l": [[1.0, nan], None, []],
                "s": [{"a": nan}, {"a": 1.0}, None],
                "n": [[[nan]], [[1.0], None], None],
            }
        )
        for given in (rows, rows.slice(0, 3), pa.concat_tables([rows.slice(0, 1), rows.slice(1)])):
            snapshot = lake.overwrite("a", given)
            assert engine.rows(f"SELECT * FROM {engine.scan(snapshot)}") == [
                (1.0, None, [1.0, None], {"a": None}, [[None]]),
                (None, 2.0, None, {"a": 1.0}, [[1.0], None]),
                (None, None, [], None, None),
            ]

    def test_instants_are_microseconds_in_utc(self, lake, engine):
        snapshot = lake.append(
            "a",
            pa.table(
                {
                    "ns": pa.array([1_577_836_800_000_000_999, -1], pa.timestamp("ns", "UTC")),
                    "tz": pa.array([T0, None], pa.timestamp("s", "America/New_York")),
                }
            ),
        )
        before = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        assert read(engine, snapshot, "1 DESC") == [(T0, T0), (before, None)]
        assert [column.type for column in snapshot.columns] == ["timestamptz", "timestamptz"]

    @pytest.mark.parametrize("type", [pa.timestamp("us"), pa.list_(pa.timestamp("ns"))])
    def test_naive_timestamps_are_refused(self, lake, type):
        with pytest.raises(DataError, match=r'"when.*without a time zone'):
            lake.append("a", pa.table({"when": pa.array([None], type)}))
        assert not lake.exists("a")

    def test_types(self, lake, engine):
        rows = pa.table(
            {
                "bool": [True],
                "int8": pa.array([1], pa.int8()),
                "uint32": pa.array([2**32 - 1], pa.uint32()),
                "uint64": pa.array([2**63 - 1], pa.uint64()),
                "half": pa.array([0.5], pa.float16()),
                "words": pa.array(["x"]).dictionary_encode(),
                "view": pa.array(["y"], pa.string_view()),
                "day": [T0.date()],
                "exact": [Decimal("1.10")],
                "bytes": [b"\x00"],
                "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
                "nothing": pa.nulls(1),
            }
        )
        snapshot = lake.append("a", rows)
        assert {column.name: column.type for column in snapshot.columns if column.name != "map"} == {
            "bool": "boolean",
            "int8": "int",
            "uint32": "long",
            "uint64": "long",
            "half": "float",
            "words": "string",
            "view": "string",
            "day": "date",
            "exact": "decimal(3, 2)",
            "bytes": "binary",
            "nothing": "string",
        }
        row = engine.rows(f"SELECT * EXCLUDE (map) FROM {engine.scan(snapshot)}")[0]
        assert row == (True, 1, 2**32 - 1, 2**63 - 1, 0.5, "x", "y", T0.date(), Decimal("1.10"), b"\x00", None)

    def test_values_that_do_not_fit_are_refused(self, lake):
        with pytest.raises(DataError, match=f'"u".*{2**63}'):
            lake.append("a", pa.table({"u": pa.array([1, 2**63], pa.uint64())}))
        with pytest.raises(DataError, match='"d" has the type duration'):
            lake.append("a", pa.table({"d": pa.array([1], pa.duration("s"))}))
        assert not lake.exists("a")

    @pytest.mark.parametrize("names", [["a", "A"], ["a", "a"], [""], []])
    def test_columns_have_distinct_names(self, lake, names):
        rows = pa.Table.from_arrays([pa.array([1]) for _ in names], names=names)
        with pytest.raises(DataError):
            lake.append("t", rows)
        assert not lake.exists("t")


class TestSchemaChange:
    def test_new_columns_are_added_and_missing_ones_are_null(self, lake, engine):
        first = lake.append("a", pa.table({"i": [1]}))
        second = lake.append("a", pa.table({"s": ["x"], "i": [2]}))
        third = lake.append("a", pa.table({"s": ["y"]}))
        assert second.column_names == ("i", "s")
        assert read(engine, first) == [(1,)]
        assert read(engine, third) == [(1, None), (2, "x"), (None, "y")]

    @pytest.mark.parametrize(
        ("narrow", "wide"),
        [(pa.int32(), pa.int64()), (pa.float32(), pa.float64()), (pa.decimal128(5, 2), pa.decimal128(9, 2))],
    )
    def test_types_widen(self, lake, engine, narrow, wide):
        lake.append("a", pa.table({"n": pa.array([1], narrow)}))
        widened = lake.append("a", pa.table({"n": pa.array([2], wide)}))
        again = lake.append("a", pa.table({"n": pa.array([3], narrow)}))
        assert widened.columns == again.columns
        assert pa.types.is_decimal(wide) or widened.columns[0].type in ("long", "double")
        assert read(engine, again) == [(1,), (2,), (3,)]

    def test_whole_numbers_fit_a_column_of_numbers_if_they_are_exact(self, lake, engine):
        lake.append("a", pa.table({"n": [1.5]}))
        assert read(engine, lake.append("a", pa.table({"n": [2]}))) == [(1.5,), (2.0,)]
        with pytest.raises(DataError, match="does not fit"):
            lake.append("a", pa.table({"n": [2**53 + 1]}))

    @pytest.mark.parametrize("mode", ["append", "upsert"])
    def test_anything_else_is_refused_and_nothing_written(self, lake, mode):
        before = lake.append("a", pa.table({"i": [1], "k": [1]}))
        rows = pa.table({"i": ["one"], "k": [2]})
        with pytest.raises(SchemaMismatch, match='"i" is long in the table, and string in the rows'):
            lake.append("a", rows) if mode == "append" else lake.upsert("a", rows, ["k"])
        assert lake.snapshot("a") == before

    def test_a_renamed_and_a_re_added_column_are_not_confused(self, lake, engine):
        first = lake.append("a", pa.table({"i": [1], "old": ["x"]}))
        lake.rename_column("a", "old", "new")
        after = lake.append("a", pa.table({"i": [2], "old": ["again"], "new": ["y"]}))
        assert read(engine, first) == [(1, "x")]
        assert after.column_names == ("i", "new", "old")
        assert read(engine, after) == [(1, "x", None), (2, "y", "again")]
        upserted = lake.upsert("a", pa.table({"i": [1], "old": ["z"]}), ["i"])
        assert read(engine, upserted) == [(1, None, "z"), (2, "y", "again")]

    def test_a_dropped_and_re_added_column_is_null_in_what_stays(self, lake, engine):
        lake.overwrite("a", pa.table({"i": [1], "x": ["old"]}))
        lake.overwrite("a", pa.table({"i": [2]}))
        assert read(engine, lake.append("a", pa.table({"i": [3], "x": ["new"]}))) == [(2, None), (3, "new")]

    def test_the_same_columns_make_no_new_schema(self, lake):
        for _ in range(3):
            lake.append("a", pa.table({"i": [1], "s": [{"x": 1}]}))
            lake.overwrite("a", pa.table({"i": [1], "s": [{"x": 1}]}))
        assert len(lake.load("a").metadata.schemas) == 1


class TestTimeTravel:
    def test_by_id_and_by_time(self, lake):
        snapshots = [lake.append("a", pa.table({"i": [i]})) for i in range(4)]
        assert [each.rows for each in lake.history("a")] == [1, 2, 3, 4]
        assert len({each.id for each in snapshots}) == 4
        assert lake.snapshot("a", snapshots[1].id) == snapshots[1]
        for each in snapshots:
            found = lake.snapshot("a", each.committed_at)
            assert found.committed_at == each.committed_at
            assert found.rows >= each.rows
        assert lake.snapshot("a", snapshots[-1].committed_at + timedelta(days=1)) == snapshots[-1]

    def test_what_is_not_there(self, lake):
        with pytest.raises(NotFound, match='no table "flihgts"'):
            lake.snapshot("flihgts")
        lake.append("flights", pa.table({"i": [1]}))
        with pytest.raises(NotFound) as caught:
            lake.snapshot("flihgts")
        assert "did you mean 'flights'" in caught.value.hint
        with pytest.raises(NotFound, match="no snapshot 5"):
            lake.snapshot("flights", 5)
        with pytest.raises(NotFound, match="no snapshot at 2020"):
            lake.snapshot("flights", T0)
        with pytest.raises(DataError, match="names no time zone"):
            lake.snapshot("flights", datetime(2020, 1, 1))


class TestUpkeep:
    def test_expiry_keeps_the_last_the_young_and_the_pinned(self, lake, engine):
        snapshots = [lake.append("a", pa.table({"i": [i]}), token=f"t{i}") for i in range(6)]
        lake.pin(snapshots[1], "model-1")
        lake.pin(snapshots[1], "model-1")
        assert lake.expire("a", keep_last=2, older_than=timedelta(hours=1)) == 0
        assert lake.expire("a", keep_last=2, older_than=timedelta(0)) == 3
        assert [each.id for each in lake.history("a")] == [snapshots[i].id for i in (1, 4, 5)]
        with pytest.raises(NotFound, match="expired"):
            lake.snapshot("a", snapshots[0].id)
        with pytest.raises(NotFound):
            engine.scan(snapshots[0])
        with pytest.raises(NotFound):
            lake.pin(snapshots[0], "late")
        assert lake.append("a", pa.table({"i": [0]}), token="t0") == snapshots[5]
        assert read(engine, snapshots[1]) == [(0,), (1,)]

    def test_a_name_pins_one_snapshot(self, lake):
        first, second = (lake.append("a", pa.table({"i": [i]})) for i in range(2))
        lake.pin(first, "v1")
        with pytest.raises(DataError, match="already keeps"):
            lake.pin(second, "v1")
        with pytest.raises(DataError):
            lake.pin(first, "main")
        lake.unpin("a", "v1")
        lake.pin(second, "v1")
        assert lake.expire("a", keep_last=1, older_than=timedelta(0)) == 1

    def test_garbage_is_what_nothing_refers_to(self, lake, engine):
        first = lake.overwrite("a", pa.table({"i": [1]}))
        second = lake.overwrite("a", pa.table({"i": [2]}))
        superseded = [Path(file) for file in lake.plan(second).files]
        third = lake.overwrite("a", pa.table({"i": [3]}))
        lake.append("gone", pa.table({"i": [3]}))
        lake.drop("gone")
        orphan = lake.warehouse / "main" / "a" / "data" / "orphan.parquet"
        orphan.write_bytes(b"half written")
        lake.pin(first, "v1")
        lake.expire("a", keep_last=1, older_than=timedelta(0))
        assert lake.collect_garbage(timedelta(hours=1)).files == 0
        for path in lake.warehouse.rglob("*.*"):
            os.utime(path, (0, 0))
        collected = lake.collect_garbage(timedelta(hours=1))
        assert collected.files > 0
        assert collected.bytes > 0
        assert not orphan.exists()
        assert not list(lake.warehouse.glob("main/gone/data/*"))
        assert lake.collect_garbage(timedelta(hours=1)).files == 0
        again = IcebergLake(lake.root)
        fresh = DuckDBEngine(again, threads=1)
        assert [read(fresh, each) for each in (first, third)] == [[(1,)], [(3,)]]
        assert not any(file.exists() for file in superseded)
        fresh.close()

    def test_compaction_keeps_the_rows(self, lake, engine):
        for i in range(5):
            lake.append("a", pa.table({"i": [i]}), properties={"n": str(i)})
        lake.append("a", pa.table({"s": ["x"]}))
        before = read(engine, lake.snapshot("a"))
        after = lake.compact("a")
        assert len(lake.plan(after).files) == 1
        assert (read(engine, after), after.rows) == (before, 6)
        assert lake.compact("a") is None


class TestMoving:
    def test_a_copied_lake_reads_and_writes_its_own_files(self, lake, tmp_path):
        first = lake.append("a", pa.table({"i": [1]}))
        lake.pin(first, "v1")
        copy = tmp_path / "else where" / "lake"
        copy.parent.mkdir()
        shutil.copytree(lake.root, copy)
        shutil.rmtree(lake.root)
        moved = IcebergLake(copy)
        engine = DuckDBEngine(moved, threads=1)
        moved.upsert("a", pa.table({"i": [1, 2], "x": ["p", "q"]}), ["i"])
        assert read(engine, moved.snapshot("a")) == [(1, "p"), (2, "q")]
        assert read(engine, moved.snapshot("a", first.id)) == [(1,)]
        assert all(Path(file).is_relative_to(copy) for file in moved.plan(moved.snapshot("a")).files)
        assert moved.compact("a") is None
        assert not lake.root.exists()
        engine.close()


class TestThreads:
    def test_appends_from_threads_all_arrive(self, lake):
        def work(number):
            for i in range(5):
                lake.append("a", pa.table({"i": [number * 100 + i]}))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lake.snapshot("a").rows == 20
        assert len(lake.history("a")) == 20
