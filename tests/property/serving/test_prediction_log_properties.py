"""The prediction log against what it promises: acknowledged is kept, moved once, in order; refused is nowhere."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millpond.serving.log.drain import drain, find, pending
from millpond.serving.log.frames import Encoder, Group
from millpond.serving.log.ids import RowIds
from millpond.serving.log.reading import scan, to_table
from millpond.serving.log.segments import MAGIC
from millpond.serving.log.spool import PredictionLog
from millpond.serving.log.tables import kinds_of, there
from millpond.serving.ports import Answer, LogPolicy, LogRecord, OutputColumn, RequestColumn, ServedModel
from millpond.serving.rows import Rows

NUMBERS = {
    "float64": st.floats(allow_nan=False),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "instant": st.integers(-(2**55), 2**55),
    "bool": st.booleans(),
    "string": st.text(max_size=6),
}
NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), max_size=5, unique_by=str.lower)
TEXTS = st.text(max_size=8)


@st.composite
def signatures(draw: st.DrawFn, version: int = 1) -> ServedModel:
    kinds = st.sampled_from(sorted(NUMBERS))
    columns = [RequestColumn(name, draw(kinds), False, "input") for name in draw(NAMES)]
    inputs = {name: draw(kinds) for name in draw(NAMES)}
    outputs = draw(
        st.sampled_from(
            [
                (OutputColumn("output", "float64"),),
                (OutputColumn("label", "string"), OutputColumn("weights", "float64", 3), OutputColumn("n", "int64")),
            ]
        )
    )
    redact = tuple(name for name in (*(each.name for each in columns), *inputs) if draw(st.integers(0, 9)) == 0)
    policy = LogPolicy(redact=redact)
    return ServedModel("m", version, "other", None, tuple(columns), None, inputs, outputs, logging=policy)


@st.composite
def rows_of(draw: st.DrawFn, kinds: Mapping[str, str], count: int, *, matrix: bool) -> Rows:
    if matrix:
        values = [draw(st.lists(st.none() | NUMBERS["float64"], min_size=len(kinds), max_size=len(kinds)))
                  for _ in range(count)]  # fmt: skip
        return Rows(count, tuple(kinds), matrix=np.array(values, float).reshape(count, len(kinds)))
    given = []
    for kind in kinds.values():
        column: Any = draw(st.lists(st.none() | NUMBERS[kind], min_size=count, max_size=count))
        if kind == "float64" and draw(st.booleans()):
            column = np.array(column, float)
        elif kind in ("int64", "bool") and None not in column and draw(st.booleans()):
            column = np.array(column, {"int64": np.int64, "bool": bool}[kind])
        given.append(column)
    return Rows(count, tuple(kinds), tuple(given))


@st.composite
def records(draw: st.DrawFn, served: ServedModel, number: int) -> LogRecord:
    count = draw(st.sampled_from([1, 1, 2, 5]))
    asked = {column.name: column.type for column in served.columns}
    carried = {name: kind for name, kind in asked.items() if draw(st.booleans())}
    floats = all(kind == "float64" for kind in served.inputs.values())
    inputs = draw(rows_of(served.inputs, count, matrix=floats and draw(st.booleans())))
    raw = draw(st.booleans())
    request = inputs if raw else draw(rows_of(carried, count, matrix=False))
    outputs: dict[str, Any] = {}
    for output in served.outputs:
        if output.width:
            outputs[output.name] = np.array(draw(st.lists(st.floats(-1, 1), min_size=3 * count, max_size=3 * count)))
            outputs[output.name] = outputs[output.name].reshape(count, 3)
        else:
            outputs[output.name] = draw(st.lists(NUMBERS[output.type], min_size=count, max_size=count))
    base = f"p_{number:04}"
    ids = draw(st.sampled_from([RowIds(base, count), [f"{base}.{row}" for row in range(count)]]))
    answer = Answer(
        served,
        draw(st.sampled_from(["live", "canary", "asked"])),
        ids,
        outputs,
        draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count)),
        draw(st.lists(NUMBERS["instant"], min_size=count, max_size=count)),
        draw(st.none() | NUMBERS["instant"]),
    )
    return LogRecord(
        answer,
        request,
        raw,
        inputs,
        draw(NUMBERS["instant"]),
        draw(TEXTS),
        draw(st.integers(0, 2**40)),
        draw(st.none() | TEXTS),
        draw(st.dictionaries(TEXTS, st.integers(0, 2**63 - 1), max_size=2)),
        draw(st.dictionaries(TEXTS, st.integers(0, 2**63 - 1), max_size=2)),
        draw(st.none() | st.integers(1, 9)),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[LogRecord]:
    """Records of two versions of a model, whose columns may be of other kinds, in any order."""
    versions = [draw(signatures(version)) for version in (1, 2)]
    return [draw(records(draw(st.sampled_from(versions)), number)) for number in range(draw(st.integers(1, 5)))]


def expected(record: LogRecord) -> list[dict[str, Any]]:
    """The rows of the lake table, from the record alone."""
    answer, served = record.answer, record.answer.served
    found = []
    for row in range(record.inputs.count):
        values: dict[str, Any] = {
            "prediction_id": answer.ids[row],
            "request_id": record.request_id,
            "model": "m",
            "version": served.version,
            "variant": answer.variant if record.shadow_of is None else "shadow",
            "shadow_of": record.shadow_of,
            "raw": record.raw,
            "predicted_at": record.predicted_at,
            "as_of": answer.as_of[row],
            "requested_by": record.requested_by,
            "answer": None if answer.answers is None else answer.answers[row],
            "latency_ms": record.latency_us / 1000,
            "snapshots": dict(record.snapshots),
            "events": dict(record.events),
            "synced_at": answer.synced_at,
        }
        for output in served.outputs:
            value = answer.outputs[output.name][row]
            name = "output" if output.name == "output" else f"output__{output.name}"
            values[name] = list(value) if output.width else value
        for prefix, rows in (("request__", record.request), ("input__", record.inputs)):
            if prefix == "request__" and record.raw:
                continue
            plain = rows.values(row)
            values |= {prefix + name: value for name, value in plain.items() if name not in served.logging.redact}
        found.append(values)
    return found


def stored(table: Any) -> Iterator[dict[str, Any]]:
    """Rows of a table without the nulls, by the plain names of columns; instants as microseconds."""
    instants = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    for name in instants:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    for row in table.to_pylist():
        row["snapshots"], row["events"] = json.loads(row["snapshots"]), json.loads(row["events"])
        yield row


def frames_of(recorded: list[LogRecord]) -> tuple[list[bytes], list[bytes]]:
    """What they refer to, and the frames."""
    encoder, group = Encoder(), Group()
    for record in recorded:
        encoder.add(record, group)
    return list(group.needs.values()), group.frames


@given(logs())
@settings(max_examples=150, deadline=None)
def test_what_is_logged_comes_back_as_typed_columns(recorded: list[LogRecord]) -> None:
    needs, frames = frames_of(recorded)
    table = to_table(scan(MAGIC + b"".join([*needs, *frames])), "m")
    table.validate(full=True)
    rows = list(stored(table))
    wanted = [row for record in recorded for row in expected(record)]
    assert len(rows) == len(wanted)
    columns = kinds_of(table)
    for row, values in zip(rows, wanted, strict=True):
        served = next(each.answer.served for each in recorded if each.answer.served.version == values["version"])
        kinds = {"request__" + each.name: each.type for each in served.columns}
        kinds |= {"input__" + name: kind for name, kind in served.inputs.items()}
        used = set()
        for name, value in values.items():
            column = there(columns, name, kinds[name]) if name in kinds else name
            assert column is not None
            used.add(column)
            assert row[column] == value or value is None is row[column], (name, column)
        assert all(row[column] is None for column in row.keys() - used)


@given(logs(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_segment_cut_anywhere_is_the_whole_frames_before_the_cut(
    recorded: list[LogRecord], data: st.DataObject
) -> None:
    needs, frames = frames_of(recorded)
    start = len(MAGIC) + sum(map(len, needs))
    whole = MAGIC + b"".join([*needs, *frames])
    cut = data.draw(st.integers(start, len(whole)))
    tail = data.draw(st.sampled_from([b"", bytes(200), b"\xff" * 30]))
    segment = scan(whole[:cut] + tail)
    ends = [start + sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    kept = [record for record, end in zip(recorded, ends, strict=True) if end <= cut]
    found = to_table(segment, "m").column("prediction_id").to_pylist() if kept else []
    assert found == [each for record in kept for each in record.answer.ids]
    assert segment.rows == len(found)


@given(logs(), st.sampled_from([{}, {"input__a": "string", "input__A": "bool"}]))
@settings(max_examples=40, deadline=None)
def test_columns_find_their_place_again(recorded: list[LogRecord], columns: dict[str, str]) -> None:
    """The names that rows get in a table are the same once the table has them."""
    needs, frames = frames_of(recorded)
    segment = scan(MAGIC + b"".join([*needs, *frames]))
    first = to_table(segment, "m", columns)
    again = to_table(segment, "m", columns | kinds_of(first))
    assert again.select(first.column_names).equals(first)
    lower = [name.lower() for name in {*columns, *first.column_names}]
    assert len(lower) - len(set(lower)) <= (1 if columns else 0)


SERVED = ServedModel(
    "m", 1, "classification", 0.5, (RequestColumn("x", "string", True, "input"),), None, {"x": "string"}
)


class Spool(RuleBasedStateMachine):
    """Two writers, crashes and drains in any order; the lake takes a token once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.logs = [PredictionLog(self.folder, max_bytes=1_500) for _ in range(2)]
        self.acknowledged: list[str] = []
        self.lake: dict[str, list[str]] = {}

    def teardown(self) -> None:
        for log in self.logs:
            log.close()
        self.move(fail=False)
        assert self.moved() == set(self.acknowledged)
        shutil.rmtree(self.folder)

    def moved(self) -> set[str]:
        ids = [each for batch in self.lake.values() for each in batch]
        assert len(ids) == len(set(ids))
        return set(ids)

    def fresh(self, count: int) -> LogRecord:
        start = len(self.acknowledged)
        ids = [f"p_{start + number:06d}" for number in range(count)]
        rows = Rows.of({"x": ["y" * 50] * count})
        answer = Answer(SERVED, "live", ids, {"output": [0.5] * count}, [True] * count, [1] * count)
        return LogRecord(answer, rows, False, rows, 1, "ann", 1)

    @rule(which=st.integers(0, 1), count=st.integers(1, 4))
    def write(self, which: int, count: int) -> None:
        record = self.fresh(count)
        self.logs[which].write([record])
        self.acknowledged += record.answer.ids

    @rule(which=st.integers(0, 1))
    def rotate(self, which: int) -> None:
        self.logs[which].rotate()

    @rule(which=st.integers(0, 1), torn=st.integers(1, 200))
    def crash(self, which: int, torn: int) -> None:
        """The process dies in the middle of a write: its lock is gone, and its segment may have a torn tail."""
        before = set(self.folder.glob("*.log"))
        self.logs[which].write([self.fresh(1)])
        self.acknowledged.append(f"p_{len(self.acknowledged):06d}")
        grown = set(self.folder.glob("*.log")) - before
        self.logs[which].close()
        for path in grown:
            with path.open("ab") as file:
                file.write(frames_of([self.fresh(3)])[1][0][:torn])
        self.logs[which] = PredictionLog(self.folder, max_bytes=1_500)

    @rule(fail=st.booleans())
    def move(self, fail: bool) -> None:
        def write(table: str, rows: Any, token: str) -> None:
            ids = rows.column("prediction_id").to_pylist()
            assert self.lake.setdefault(token, ids) == ids
            if fail:
                raise ConnectionError("gone after the commit")

        try:
            drain(self.folder, write)
        except ConnectionError:
            assert fail

    @invariant()
    def nothing_is_lost(self) -> None:
        rows = pending(self.folder, "m")
        waiting = [] if rows is None else rows.column("prediction_id").to_pylist()
        assert len(waiting) == len(set(waiting))
        assert self.moved() | set(waiting) == set(self.acknowledged)
        if self.acknowledged:
            last = self.acknowledged[-1]
            assert last in self.moved() or find(self.folder, last) is not None


Spool.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestSpool = Spool.TestCase
