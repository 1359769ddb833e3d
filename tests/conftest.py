"""What tests of several rooms share: engines. A test process starts one Java process at most, of at most 2 GB."""

import pytest

from millpond.lake.duckdb import DuckDBEngine

SPARK = {
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
}


@pytest.fixture(scope="session")
def spark_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def spark_options(spark_folder):
    """Of every engine of a test process: one Java process has one set of settings."""
    conf = {**SPARK, "spark.local.dir": str(spark_folder)}
    return {"master": "local[2]", "conf": conf, "temp_directory": spark_folder / "queries"}


@pytest.fixture
def new_engine(spark_options):
    """Make an engine ("duckdb" or "spark") over a lake; closed after the test."""
    made = []

    def make(dialect, lake, **options):
        if dialect == "duckdb":
            engine = DuckDBEngine(lake, **{"threads": 1, **options})
        else:
            from millpond.lake.spark import SparkEngine

            engine = SparkEngine(lake, **{**spark_options, **options})
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
