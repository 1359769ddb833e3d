from datetime import UTC, datetime

import pytest

from millpond.console.forms import AS_OF, blank, fill, refused
from millpond.core.errors import RequestError
from millpond.platform.read_models import RequestField

FIELDS = (
    RequestField("origin", "string", True, "key", "JFK", ("JFK", "LGA")),
    RequestField("scheduled_at", "instant", True, "request", datetime(2013, 12, 1, 8, 0, tzinfo=UTC)),
    RequestField("distance", "float64", False, "input", 187.5),
    RequestField("stops", "int64", False, "input"),
    RequestField("charter", "bool", False, "input", False),
)
SOUND = {"origin": " JFK ", "scheduled_at": "2013-12-01T08:00", "distance": "1e3", "stops": "-2", "charter": "true"}


def errors(**sent: str) -> dict[str, str]:
    return {field.name: field.error for field in fill(FIELDS, {**SOUND, **sent}).fields if field.error}


def test_the_first_form_is_filled_with_the_examples() -> None:
    texts = [field.text for field in blank(FIELDS).fields]
    assert texts == ["JFK", "2013-12-01T08:00:00", "187.5", "", "false"]


def test_values_are_read_by_type() -> None:
    form = fill(FIELDS, SOUND)
    assert form.sound
    instant = datetime(2013, 12, 1, 8, 0, tzinfo=UTC)
    assert form.row == {"origin": "JFK", "scheduled_at": instant, "distance": 1000.0, "stops": -2, "charter": True}


def test_empty_fields_are_left_out() -> None:
    form = fill(FIELDS, {"origin": "JFK", "scheduled_at": "2013-12-01T08:00:00+01:00", "distance": "  "})
    assert form.row == {"origin": "JFK", "scheduled_at": datetime(2013, 12, 1, 7, 0, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({"origin": "  "}, "origin is needed."),
        ({"scheduled_at": "tomorrow"}, "scheduled_at: 'tomorrow' is not a date and time"),
        ({"scheduled_at": "2013-13-01T00:00"}, "is not a date and time"),
        ({"distance": "far"}, "'far' is not a number"),
        ({"distance": "nan"}, "'nan' is not a finite number"),
        ({"distance": "inf"}, "'inf' is not a finite number"),
        ({"stops": "1.5"}, "'1.5' is not a whole number"),
        ({"stops": "9223372036854775808"}, "is too large"),
        ({"charter": "maybe"}, "'maybe' is neither yes nor no"),
    ],
)
def test_an_error_stands_beside_its_field(sent: dict[str, str], error: str) -> None:
    found = errors(**sent)
    assert list(found) == list(sent)
    assert error in found[next(iter(sent))]


def test_what_was_typed_stays() -> None:
    form = fill(FIELDS, {**SOUND, "distance": "far"})
    assert [field.text for field in form.fields] == ["JFK", "2013-12-01T08:00", "far", "-2", "true"]


def test_the_instant_of_the_features_is_read() -> None:
    assert fill(FIELDS, {**SOUND, AS_OF: "2013-12-01T09:30"}).as_of == datetime(2013, 12, 1, 9, 30, tzinfo=UTC)
    wrong = fill(FIELDS, {**SOUND, AS_OF: "noon"})
    assert not wrong.sound
    assert "'noon'" in wrong.problems[0]


def test_an_error_of_the_platform_goes_to_the_field_it_names() -> None:
    form = fill(FIELDS, SOUND)
    error = RequestError("'XYZ' is no airport.", where="row 0, origin", hint="three letters")
    beside = refused(form, error)
    assert beside.fields[0].error == "'XYZ' is no airport. Three letters"
    assert not beside.problems
    above = refused(form, RequestError("Too many rows.", where="rows"))
    assert above.problems == ("Too many rows.",)
    assert not any(field.error for field in above.fields)
