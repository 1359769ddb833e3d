"""A live view in a sorted dictionary."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, NotFound, SchemaMismatch, StoreMismatch
from millpond.features.online.live import LiveView
from millpond.features.online.live.tree import HEAD, MOST_CHILDREN, MOST_ROWS
from millpond.features.online.ports import OnlineView, Row
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

T0 = datetime(2020, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
START = 1_577_836_800 * SECOND
TYPES = {
    "g": "string",
    "id": "long",
    "time": "timestamptz",
    "known": "timestamptz",
    "boolean": "boolean",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "date": "date",
    "timestamptz": "timestamptz",
    "decimal": "decimal(10, 2)",
    "wide": "decimal(38, 4)",
    "binary": "binary",
    "tags": "list<string>",
}
ARROW = {
    "g": pa.string(),
    "id": pa.int64(),
    "time": pa.timestamp("us", tz="UTC"),
    "known": pa.timestamp("us", tz="UTC"),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "decimal": pa.decimal128(10, 2),
    "wide": pa.decimal128(38, 4),
    "binary": pa.binary(),
}
COLUMNS = list(ARROW)[4:]
EVENTS = mp.Table("events", key="id", time="time")
LATE = mp.Table("events", key="id", time="time", known="known")
FACTS = mp.Table("events", key="id")


class Memory(dict):
    """Ordered bytes."""

    def put(self, key, value):
        self[key] = value

    def delete(self, key):
        del self[key]

    def scan(self, start, stop):
        return iter(sorted((key, value) for key, value in self.items() if start <= key < stop))


def live(source, **features):
    view = mp.Features("v", entity=mp.Entity("thing", key="g"), source=source, **features)
    columns = tuple(Column(name, type) for name, type in TYPES.items())
    return LiveView(OnlineView.of(plan_views([PinnedView(view, Snapshot("events", 1, T0, 0, columns))])[0]))


def entity(key):
    return key[0].encode() + b"\x00"


def event(number, **values):
    row = dict.fromkeys(ARROW)
    time = T0 + timedelta(seconds=number)
    return {**row, "g": "a", "id": number, "time": time, "known": time, **values}


def as_row(view, event):
    def us(name):
        return (event[name] - T0) // timedelta(microseconds=1) + START if name else 0

    time = us(view.view.time)
    key = tuple(event[name] for name in view.view.row_keys)
    values = tuple(event[each.name] for each in view.view.columns)
    return Row(time, us(view.view.known) if view.view.known else time, key, values)


def inserted(view, events):
    kv = Memory()
    for each in events:
        view.insert(kv, b"p", entity((each["g"],)), as_row(view, each))
    return kv


def built(view, events, batch=1000):
    table = pa.table({name: pa.array([each[name] for each in events], type) for name, type in ARROW.items()})
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=batch))
    return Memory((b"p" + key, value) for key, value in view.build(reader, entity))


def ask(view, kv, seconds, g="a"):
    return view.compute(kv, b"p", entity((g,)), START + round(seconds * SECOND))


def every_type(number):
    return event(
        number,
        boolean=number % 2 == 0,
        int=number,
        long=2**60 + number,
        float=number / 2,
        double=number / 10,
        string=f"s{number:03d}",
        date=date(2020, 1, 1) + timedelta(days=number),
        timestamptz=T0 + timedelta(microseconds=number),
        decimal=Decimal(number) / 4,
        wide=Decimal(number) * 10**30,
        binary=bytes([number]),
    )


@pytest.mark.parametrize("make", [inserted, built])
@pytest.mark.parametrize("count", [5, 200])
def test_every_type_in_every_kind(make, count):
    events = [every_type(number) for number in range(count)] + [event(count)]
    last, top = every_type(count - 1), max(every_type(number)["boolean"] for number in range(count))
    for name in COLUMNS:
        view = live(
            EVENTS,
            latest=mp.latest(name),
            first=mp.first(name),
            least=mp.min(name),
            greatest=mp.max(name),
            n=mp.count(name),
            distinct=mp.nunique(name),
        )
        kv = make(view, events)
        best = top if name == "boolean" else last[name]
        distinct = 2 if name == "boolean" else count
        least = min(each[name] for each in events[:-1])
        before = ask(view, kv, count)  # the row of nulls is not visible yet
        assert before == (last[name], events[0][name], least, best, count, distinct)
        assert [type(each) for each in before[:4]] == [type(last[name])] * 4
        assert ask(view, kv, count + 1) == (None, events[0][name], least, best, count, distinct)


def test_sums_of_integers_are_exact_and_refused_past_64_bits():
    view = live(EVENTS, whole=mp.sum("long"), recent=mp.sum("long", over="1s"), mean=mp.mean("long"))
    few = inserted(view, [event(number, long=2**62 - number) for number in range(2)])
    assert ask(view, few, 1.5) == (2**63 - 1, 2**62 - 1, (2**63 - 1) / 2)
    for make in (inserted, built):
        many = make(view, [event(number, long=2**62) for number in range(300)])
        with pytest.raises(DataError, match=r"v__whole reaches 1383505805528216371200, which does not fit"):
            ask(view, many, 400)
        only_mean = live(EVENTS, mean=mp.mean("long"), recent=mp.sum("long", over="1s"))
        assert ask(only_mean, make(only_mean, [event(n, long=2**62) for n in range(300)]), 400) == (2.0**62, None)


def test_a_row_is_seen_strictly_after_it_is_known():
    view = live(LATE, n=mp.count(over="1h"), last=mp.latest("long"))
    kv = inserted(view, [event(0, long=1), event(10, long=2, known=T0 + timedelta(seconds=30))])
    assert [ask(view, kv, at) for at in (0, 0.000001, 30, 30.000001, 3600, 3600.000001, 3610.000001)] == [
        (0, None),
        (1, 1),
        (1, 1),
        (2, 2),
        (2, 2),
        (1, 2),
        (0, 2),
    ]


def test_within_makes_older_values_null():
    view = live(EVENTS, a=mp.latest("long", within="1m"), b=mp.latest("long"))
    kv = inserted(view, [event(0, long=1)])
    assert [ask(view, kv, at) for at in (60, 60.000001)] == [(1, 1), (None, 1)]


def test_a_view_without_time_sees_every_row_always():
    view = live(FACTS, n=mp.count(), last=mp.latest("string"), first=mp.first("string"), total=mp.sum("long"))
    for make in (inserted, built):
        kv = make(view, [event(number, string=f"s{number}", long=number) for number in range(100)])
        assert ask(view, kv, -(10**6)) == ask(view, kv, 10**6) == (100, "s99", "s0", 4950)


def test_an_unknown_entity_has_no_answer_and_one_whose_rows_are_gone_neither():
    view = live(EVENTS, n=mp.count(), last=mp.latest("long"))
    kv = inserted(view, [event(number) for number in range(200)])
    assert ask(view, kv, 500, "nobody") is None
    assert ask(view, kv, -1) == (0, None)
    for number in range(200):
        view.remove(kv, b"p", b"a\x00", as_row(view, event(number)))
    assert kv == {}
    assert ask(view, kv, 500) is None


def test_removing_what_is_not_there_is_an_error_and_changes_nothing():
    view = live(EVENTS, n=mp.count(), last=mp.latest("long"))
    kv = inserted(view, [event(number, long=number) for number in range(70)])
    before = dict(kv)
    for given in (event(3, long=4), event(70), event(3, long=3, g="b")):
        with pytest.raises(NotFound):
            view.remove(kv, b"p", entity((given["g"],)), as_row(view, given))
    assert kv == before


def test_forgetting_takes_one_entity_alone():
    view = live(EVENTS, n=mp.count())
    kv = inserted(view, [event(number, g="ab"[number % 2]) for number in range(300)])
    assert view.forget(kv, b"p", b"a\x00") == 150
    assert view.forget(kv, b"p", b"a\x00") == 0
    assert (ask(view, kv, 500), ask(view, kv, 500, "b")) == (None, (150,))
    assert all(key.startswith(b"pb\x00") for key in kv)


@pytest.mark.parametrize("batch", [23, 64, 1000, 10_000])
def test_a_load_and_later_rows_answer_as_rows_alone(batch):
    view = live(EVENTS, n=mp.count(over="10m"), s=mp.sum("long", over="20m"), x=mp.max("string"), last=mp.latest("int"))
    count = MOST_ROWS * 30
    events = [
        event(number // 3, id=number % 7, long=number, string=f"{number:05d}", int=number) for number in range(count)
    ]
    events += [event(number, g="b", long=1) for number in range(5)]
    loaded, alone = built(view, events, batch), inserted(view, events)
    assert list(loaded) == sorted(loaded)
    for number, g in ((200, "a"), (0, "a"), (count, "b"), (-5, "c")):
        more = event(number, g=g, id=-number, long=number, string="x", int=number)
        view.insert(loaded, b"p", entity((g,)), as_row(view, more))
        view.insert(alone, b"p", entity((g,)), as_row(view, more))
    for g in "abc":
        for at in range(-10, count, 97):
            assert ask(view, loaded, at, g) == ask(view, alone, at, g)


def test_high_trees():
    view = live(EVENTS, n=mp.count(), s=mp.sum("long", over="1d"), d=mp.std("double"))
    count = MOST_ROWS * MOST_CHILDREN + 10
    kv = built(view, [event(number, long=number, double=float(number % 2)) for number in range(count)])
    assert kv[b"pa\x00" + HEAD][1] == 2  # the root's level
    n, s, d = ask(view, kv, count)
    assert (n, s) == (count, sum(range(count)))
    assert d == pytest.approx((count / 4 / (count - 1)) ** 0.5, rel=1e-12)


def test_rows_that_nobody_can_ever_see_are_left_out():
    view = live(LATE, n=mp.count())
    events = [event(0), event(1, known=None), event(2, time=None), event(3, g=None), event(4)]
    assert ask(view, built(view, events), 100) == (2,)
    assert built(view, events[1:4]) == {}


def test_state_of_another_format_is_refused():
    view = live(EVENTS, last=mp.latest("long"))
    kv = inserted(view, [event(0)])
    kv[b"pa\x00" + HEAD] = b"\x09" + kv[b"pa\x00" + HEAD][1:]
    for use in (lambda: ask(view, kv, 1), lambda: view.insert(kv, b"p", b"a\x00", as_row(view, event(1)))):
        with pytest.raises(StoreMismatch, match="format 9"):
            use()


def test_columns_without_order_are_refused():
    with pytest.raises(SchemaMismatch, match=r"Column 'tags' is list<string>"):
        live(EVENTS, n=mp.count("tags"))
