import pytest

from millpond.lake.iceberg import IcebergLake


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "lake")


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.slow)])
def engine(request, new_engine, lake):
    return new_engine(request.param, lake)


@pytest.fixture
def read(engine):
    def rows(snapshot, columns="*"):
        return engine.rows(f"SELECT {columns} FROM {engine.scan(snapshot)} ORDER BY 1")

    return rows
