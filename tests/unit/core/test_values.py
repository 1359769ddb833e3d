"""Plain values become values of a type, or are refused with a reason."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from millpond.core.values import read_value


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "int64", None),
        ("", "int64", None),
        ("", "string", ""),
        ("12", "int64", 12),
        (12.0, "int64", 12),
        (-(2**63), "int64", -(2**63)),
        ("1.5", "float64", 1.5),
        (float("nan"), "float64", None),
        ("true", "bool", True),
        (False, "bool", False),
        ("2013-12-01T08:00:00+01:00", "instant", datetime(2013, 12, 1, 7, tzinfo=UTC)),
        ("2013-12-01", "date", date(2013, 12, 1)),
        ("1.10", "decimal", Decimal("1.10")),
        ("00ff", "binary", b"\x00\xff"),
    ],
)
def test_reads(value, kind, expected):
    assert read_value(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("twelve", "int64", "invalid literal"),
        (1.5, "int64", "no whole number"),
        (True, "int64", "boolean"),
        (2**63, "int64", "64 bits"),
        (True, "float64", "boolean"),
        ("maybe", "bool", "true or false"),
        (5, "string", "in quotes"),
        ("2013-12-01T08:00:00", "instant", "no time zone"),
        (5, "instant", "in quotes"),
        ([1], "float64", "does not fit"),
        ("x", "decimal", "does not fit"),
        ("zz", "binary", "hexadecimal"),
    ],
)
def test_refuses(value, kind, reason):
    with pytest.raises(ValueError, match=reason):
        read_value(value, kind)
