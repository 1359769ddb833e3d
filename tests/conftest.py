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


@pytest.fixture
def new_engine(spark_folder):
    """Make an engine ("duckdb" or "spark") over a lake; closed after the test."""
    made = []

    def make(dialect, lake, **options):
        if dialect == "duckdb":
            engine = DuckDBEngine(lake, **{"threads": 1, **options})
        else:
            from millpond.lake.spark import SparkEngine

            conf = {**SPARK, "spark.local.dir": str(spark_folder)}
            options = {"master": "local[2]", "conf": conf, "temp_directory": spark_folder / "queries", **options}
            engine = SparkEngine(lake, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
