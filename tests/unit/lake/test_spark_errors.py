import pytest

from millpond.core.errors import DataError, NotFound, SettingsError, Unavailable
from millpond.lake.query_errors import of_engine, translate

pytest.importorskip("pyspark")

WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/opt/worker.py", line 7, in main
    process()
{}
"""
JAVA = "\n\tat org.apache.spark.sql.Dataset.collect(Dataset.scala:1)\nCaused by: java.lang.RuntimeException: x"
CASES = {
    "column": (
        "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column, variable, or function parameter with name `w`.`tmp` cannot be"
        " resolved. Did you mean one of the following? [`w`.`temp`, `origin`]. SQLSTATE: 42703; line 3 pos 7" + JAVA,
        (DataError, 'There is no column "tmp"', "'temp'", "here, line 2 of the query"),
    ),
    "table": (
        "[TABLE_OR_VIEW_NOT_FOUND] The table or view `wether` cannot be found. Verify the spelling. SQLSTATE: 42P01",
        (DataError, 'There is no table "wether" here', "'weather'", "here"),
    ),
    "overflow": (
        "[ARITHMETIC_OVERFLOW] integer overflow. Use 'try_add' to tolerate overflow. SQLSTATE: 22003" + JAVA,
        (DataError, "A number does not fit its type: integer overflow.", "wider", "here"),
    ),
    "file": (
        "[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file file:///lake/a/data/x.parquet. Gone.",
        (NotFound, "Files of the snapshot are gone", "expired", "/lake/a/data/x.parquet"),
    ),
    "memory": ("java.lang.OutOfMemoryError: Java heap space" + JAVA, (Unavailable, "more memory", "driver.memory", "")),
    "lost": ("Answer from Java side is empty", (Unavailable, "does not answer", "log", "here")),
    "disk": (
        WORKER.format("OSError: [Errno 28] No space left on device"),
        (Unavailable, "written by Spark's executors: [Errno 28] No space left on device", "same path", "here"),
    ),
    "not installed": (
        WORKER.format("ModuleNotFoundError: No module named 'millpond'"),
        (SettingsError, "executors cannot run Millpond", "spark.pyspark.python", "here"),
    ),
    "other": (
        "[SOMETHING_NEW] It went wrong.\nAt length. SQLSTATE: 1" + JAVA,
        (DataError, "It went wrong.", "", "here"),
    ),
    "unknown": ("java.lang.IllegalStateException: odd" + JAVA, (DataError, "odd", "", "here")),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_spark_says(case):
    from pyspark.errors import PySparkException

    text, (kind, what, hint, where) = CASES[case]
    raised = PySparkException(text)
    assert of_engine(raised)
    error = translate(raised, "here", lines_before=1, tables=["weather"])
    assert type(error) is kind
    assert what in error.what
    assert hint in error.hint
    assert where in error.where
    assert not any(word in str(error) for word in ("\tat ", "org.apache", "SQLSTATE", "Traceback"))
