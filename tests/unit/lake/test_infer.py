import pytest

from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake
from millpond.lake.infer import KINDS, cast_sql, infer, is_kind
from millpond.lake.schema import literal

TEXTS = {
    "true": {"bool"},
    "False ": {"bool"},
    "t": set(),
    "0": {"int", "float"},
    "-0": {"int", "float"},
    " +5 ": {"int", "float"},
    "0012": set(),
    "00.5": set(),
    "0x1F": set(),
    "1_000": set(),
    "1,5": set(),
    "1.": {"float"},
    ".5": {"float"},
    "-1.50": {"float"},
    "1e5": {"float"},
    "1E-300": {"float"},
    "1e999": set(),
    "NaN": {"float"},
    "-inf": {"float"},
    "999999999999999": {"int", "float"},
    "1234567890123456": {"int"},  # not every such integer is a float
    "9223372036854775807": {"int"},
    "9223372036854775808": set(),
    "12345678901234567890": set(),
    "2013-02-28": {"date"},
    "2013-02-29": set(),
    "2013-2-8": set(),
    "2013-01-01 10:00": {"naive", "stamp"},
    "2013-01-01T10:00:00.123456": {"naive", "stamp"},
    "2013-01-01T25:00": set(),
    "2013-01-01T10:00:00Z": {"instant", "stamp"},
    "2013-01-01 10:00:00+02": {"instant", "stamp"},
    "2013-01-01 10:00:00-05:30": {"instant", "stamp"},
    "2013-01-01 10:00:00 UTC": {"instant", "stamp"},
    "2013-01-01 10:00:00 -05:30": set(),
    "2013-01-01T10:00:00 America/New_York": set(),
    "": set(),
    "JFK": set(),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = DuckDBEngine(IcebergLake(tmp_path_factory.mktemp("lake")), threads=1)
    yield engine
    engine.close()


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_kinds(engine, text):
    [row] = engine.rows(f"SELECT {', '.join(is_kind('t', kind) for kind in KINDS)} FROM (SELECT {literal(text)} AS t)")
    assert {kind for kind, held in zip(KINDS, row, strict=True) if held} == TEXTS[text]
    for kind in TEXTS[text] - {"stamp", "naive"}:
        [[value]] = engine.rows(f"SELECT {cast_sql('t', kind, None)} FROM (SELECT {literal(text)} AS t)")
        assert value is not None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "null"),
        ([None], "null"),
        (["1", None], "int"),
        (["1", "2.5"], "float"),
        (["1", "true"], "string"),
        (["1234567890123456", "0.5"], "string"),
        (["2013-01-01", "2013-01-01 10:00"], "string"),
        (["2013-01-01T10:00:00Z", "2013-01-01 10:00"], "stamp"),
    ],
)
def test_a_column_is_what_all_its_values_are(engine, values, kind):
    rows = ", ".join(f"({literal(value) if value is not None else 'NULL::VARCHAR'})" for value in values)
    relation = f"(SELECT * FROM (VALUES {rows}) AS v(a))" if values else "(SELECT NULL::VARCHAR AS a WHERE false)"
    assert infer(engine, relation, ["a"]) == {"a": kind}
    padding = f"SELECT {literal(values[0])} AS a FROM range(6000)" if values and values[0] is not None else None
    if padding is not None:
        assert infer(engine, f"({padding} UNION ALL SELECT * FROM {relation})", ["a"]) == {"a": kind}
