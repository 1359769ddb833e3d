from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.time import (
    Duration,
    format_instant,
    from_microseconds,
    grid_floor,
    parse_boundary,
    parse_instant,
    to_microseconds,
)

instants = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
durations = st.integers(1, 400 * 86_400_000_000).map(Duration)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", timedelta(hours=1)),
        ("90s", timedelta(seconds=90)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("250ms", timedelta(milliseconds=250)),
        ("7us", timedelta(microseconds=7)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_durations_are_read(text, expected):
    assert Duration.parse(text).delta == expected


@pytest.mark.parametrize("text", ["", "h", "1", "1 h", "1y", "-1h", "0s", "1.5h", "one hour", "1H"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="duration|longer than zero"):
        Duration.parse(text)


@given(durations)
def test_a_duration_is_read_back_from_its_text(duration):
    assert Duration.parse(str(duration)) == duration


def test_an_instant_needs_its_offset():
    assert parse_instant("2013-12-01T09:00:00+01:00") == datetime(2013, 12, 1, 8, tzinfo=UTC)
    with pytest.raises(ValueError, match="no time zone"):
        parse_instant("2013-12-01T09:00:00")
    with pytest.raises(ValueError, match="not an ISO 8601 instant"):
        parse_instant("yesterday")


def test_a_plain_date_is_midnight_in_utc():
    assert parse_boundary("2013-12-01") == datetime(2013, 12, 1, tzinfo=UTC)


@given(instants)
def test_microseconds_are_exact_both_ways(instant):
    assert from_microseconds(to_microseconds(instant)) == instant
    assert parse_instant(format_instant(instant)) == instant


@given(instants, durations)
def test_the_grid_point_is_the_last_one_not_after(instant, every):
    point = grid_floor(instant, every)
    assert point <= instant < point + every.delta
    assert to_microseconds(point) % every.microseconds == 0


def test_a_grid_point_stands_for_itself():
    whole = datetime(2013, 12, 1, 8, tzinfo=UTC)
    assert grid_floor(whole, Duration.parse("1h")) == whole
