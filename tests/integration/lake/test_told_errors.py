"""What goes wrong in the lake is told by file, line, column and what to do."""

import importlib

import pytest

import millpond as mp
from millpond.core.errors import DataError, MillpondError, SchemaMismatch, Unavailable
from millpond.core.time import now
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake
from millpond.lake.ingest import ingest
from millpond.quality.run import run_checks


@pytest.fixture
def lake(tmp_path):
    found = IcebergLake(tmp_path / "lake")
    pa = importlib.import_module("pyarrow")
    found.append("orders", pa.table({"id": ["a", "b"], "amount": [1.0, 2.0], "kind": ["x", "y"]}))
    return found


@pytest.fixture
def engine(lake):
    found = DuckDBEngine(lake)
    yield found
    found.close()


def test_a_value_that_is_not_of_the_columns_type(lake, engine, tmp_path):
    file = tmp_path / "more.csv"
    file.write_text("id,amount,kind\nc,3.5,x\nd,many,y\n")
    with pytest.raises(SchemaMismatch) as refused:
        ingest(lake, engine, mp.Table("orders", key="id"), [file], mode="append")
    assert refused.value.what == 'Column "amount" is double in the table, and "many" is not'
    assert refused.value.where == f'{file}, line 3, column "amount"'
    assert len(lake.history("orders")) == 1


def test_a_check_that_does_not_fit_its_column(lake, engine):
    checks = [mp.in_range("amount", min=0), mp.in_range("kind", min=0)]
    table = mp.Table("orders", key="id", checks=checks)
    with pytest.raises(DataError) as refused:
        run_checks(engine, table, lake.snapshot("orders"), targets={}, now=now())
    assert 'column "kind" is string' in refused.value.what
    assert refused.value.where == str(checks[1].declared_at)


def count_anew(lake, engine):
    """Read by a lake that has not parsed the metadata before."""
    return engine.rows(f"SELECT count(id) FROM {engine.scan(IcebergLake(lake.root).snapshot('orders'))}")


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("pattern", ["*.metadata.json", "snap-*.avro", "*-m0.avro", "*.parquet"])
def test_files_that_are_gone_or_damaged(lake, engine, pattern, cut):
    file = max(lake.root.rglob(pattern), key=lambda path: path.name)
    content = file.read_bytes()
    if cut:
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    with pytest.raises(MillpondError) as told:
        count_anew(lake, engine)
    assert told.value.where.startswith(str(lake.root))
    assert told.value.hint


def test_a_damaged_catalog(lake):
    (lake.root / "catalog.db").write_bytes(b"nothing that is a database " * 1000)
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (lake.root / name).unlink(missing_ok=True)
    with pytest.raises(Unavailable, match="damaged") as told:
        IcebergLake(lake.root).tables()
    assert told.value.where == str(lake.root / "catalog.db")
