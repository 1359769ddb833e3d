import pytest

from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "lake")


@pytest.fixture
def engine(lake):
    engine = DuckDBEngine(lake, threads=1)
    yield engine
    engine.close()


@pytest.fixture
def read(engine):
    def rows(snapshot, columns="*"):
        return engine.rows(f"SELECT {columns} FROM {engine.scan(snapshot)} ORDER BY 1")

    return rows
