from datetime import UTC, datetime, timedelta

import pytest

from millpond.console.charts import metric_line
from millpond.console.rendering import ago, count, instant, number, value
from millpond.core.time import now
from millpond.platform.read_models import VersionSummary


@pytest.mark.parametrize(
    ("measured", "text"),
    [(0.75123, "0.7512"), (12.345, "12.35"), (-1234.5, "-1,234"), (0.0, "0.0000"), (1e-9, "1e-09"), (2.5e7, "2.5e+07")],
)
def test_numbers(measured: float, text: str) -> None:
    assert number(measured) == text


def test_what_is_not_there_is_a_dash() -> None:
    assert {number(None), number(float("nan")), count(None), str(instant(None)), str(ago(None))} == {"\N{EN DASH}"}


@pytest.mark.parametrize(
    ("length", "text"),
    [(3, "just now"), (42, "42 seconds ago"), (61, "1 minute ago"), (7300, "2 hours ago"), (86400 * 45, "1 month ago")],
)
def test_ages(length: int, text: str) -> None:
    assert f">{text}<" in ago(now() - timedelta(seconds=length))


def test_values_are_escaped_and_told_apart() -> None:
    assert value("<script>") == "&lt;script&gt;"
    assert "null" in value(None)
    assert value("null") == "null"
    assert value(True) == "yes"
    assert value(7219002839746010000) == "7219002839746010000"
    assert value(0.1 + 0.2) == '<span title="0.30000000000000004">0.3</span>'
    assert value({"a": "<b>"}) == "<code>{&#34;a&#34;: &#34;&lt;b&gt;&#34;}</code>"
    assert "2013-12-01 08:00:00 UTC" in value(datetime(2013, 12, 1, 8, tzinfo=UTC))


def versions(*values: float) -> list[VersionSummary]:
    made = [VersionSummary("m", n, now(), "ann", (), {"auc": v}, (), None) for n, v in enumerate(values, 1)]
    return made[::-1]


def test_a_metric_is_drawn_over_versions() -> None:
    line = metric_line(versions(0.5, 0.7, 0.6), "auc", width=200, height=100)
    assert line is not None
    assert [point.version.number for point in line.points] == [1, 2, 3]
    assert (line.low, line.high) == (0.5, 0.7)
    lowest, highest, _ = line.points
    assert lowest.y > highest.y
    assert lowest.x < highest.x


def test_equal_values_and_gaps_are_no_trouble() -> None:
    line = metric_line(versions(0.5, float("nan"), 0.5), "auc")
    assert line is not None
    assert [point.version.number for point in line.points] == [1, 3]
    assert metric_line(versions(0.5), "auc") is None
    assert metric_line(versions(0.5, 0.6), "rmse") is None
