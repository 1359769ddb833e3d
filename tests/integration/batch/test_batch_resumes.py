"""Batches that are killed or fail go on where they were, and commit once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millpond.platform import batch_jobs
from millpond.platform.batch import predict_batch
from millpond.platform.forget import forget
from millpond.platform.platform import Platform, open_project
from millpond.platform.progress import Step

pytestmark = pytest.mark.slow

Read = Callable[[Platform, str], list[dict[str, Any]]]

DIES = """
from pathlib import Path
from threading import Thread
from millpond.platform.batch import predict_batch
from millpond.platform.platform import open_project

folder, moment = Path({folder!r}), {moment!r}
batches = folder / ".millpond" / "batches"


def watch():
    while not any(batches.glob("[!.]*/" + moment)):
        pass
    die()


def listener(step):
    print(step.name, step.status, flush=True)
    if moment == f"{{step.name}} {{step.status}}":
        die()


if "/" not in moment and " " not in moment:
    Thread(target=watch, daemon=True).start()
platform = open_project(folder, user="ann", listener=listener)
predict_batch(platform, "returned", "asks", "scores", part_rows=20)
"""

#: When the process is killed, and how many of six parts are then there.
MOMENTS = [
    (".part-000002.parquet", {2, 3}),
    ("write scores done", {6}),
]


def stopping(after: int) -> Callable[[Step], None]:
    """A listener that interrupts the work when so many parts are finished."""
    done: list[Step] = []

    def listen(step: Step) -> None:
        if step.name.startswith("score "):
            if step.status == "started" and len(done) == after:
                raise KeyboardInterrupt
            if step.status == "done":
                done.append(step)

    return listen


@pytest.mark.parametrize(("moment", "there"), MOMENTS)
def test_killed_and_run_again(
    shop: Platform, run_and_die: Callable[[str], str], scores: Read, moment: str, there: set[int]
) -> None:
    run_and_die(DIES.format(folder=str(shop.settings.root), moment=moment))
    told: list[Step] = []
    again = open_project(shop.settings.root, user="ann", listener=told.append)
    committed = moment == "write scores done"
    assert again.lake.exists("scores") == committed
    with batch_jobs.writing(again, "scores"):
        job = batch_jobs.unfinished(again, "scores")
    assert job is not None
    written = predict_batch(again, "returned", "asks", "scores", part_rows=7)
    [resumed] = {step.detail for step in told if step.name == "resume batch scores"}
    assert int(resumed.split(" of 6 parts")[0]) in there
    scored = [step for step in told if step.name.startswith("score ") and step.status == "done"]
    assert len({id(step) for step in scored}) == 6 - int(resumed.split()[0])
    assert written.rows == 120
    assert len(again.lake.history("scores")) == 1
    predict_batch(again, "returned", "asks", "undisturbed")
    found, undisturbed = scores(again, "scores"), scores(again, "undisturbed")
    assert [row["ask_id"] for row in found] == list(range(120))
    for row, other in zip(found, undisturbed, strict=True):
        assert row.pop("as_of") <= other.pop("as_of")
        assert row.pop("probability") == pytest.approx(other.pop("probability"), rel=1e-12)
        assert row == other
    assert [*(shop.settings.state / "batches").iterdir()] == []
    refs = {name for table in ("asks", "orders", "people") for name in again.lake.require(table).metadata.refs}
    assert not any(name.startswith("batch-") for name in refs)


def test_what_a_job_pinned_goes_on(shop: Platform, scores: Read) -> None:
    """The champion and a table of features change meanwhile; rows say which version and snapshots they are of."""
    with pytest.raises(KeyboardInterrupt):
        predict_batch(_told(shop, stopping(2)), "returned", "asks", "scores", part_rows=50)
    pinned = shop.lake.snapshot("people")
    orders = shop.lake.snapshot("orders")
    _train_again(shop)
    told: list[Step] = []
    written = predict_batch(_told(shop, told.append), "returned", "asks", "scores")
    [resumed] = {step.detail for step in told if step.name == "resume batch scores"}
    assert resumed.startswith("2 of 3 parts are there; goes on with version 1, although the champion is version 2 now")
    found = scores(shop, "scores")
    assert {row["version"] for row in found} == {1}
    assert len({row["snapshots"] for row in found}) == 1
    assert str(pinned.id) in found[0]["snapshots"]
    assert str(orders.id) in found[0]["snapshots"]
    assert written.properties["scored"] == str(shop.lake.snapshot("asks"))
    predict_batch(shop, "returned", "asks", "scores")
    assert {row["version"] for row in scores(shop, "scores")} == {2}
    predict_batch(shop, "returned", "asks", "scores", version=1)
    assert {row["version"] for row in scores(shop, "scores")} == {1}


def test_what_is_asked_otherwise_starts_over(shop: Platform) -> None:
    def stop() -> None:
        with pytest.raises(KeyboardInterrupt):
            predict_batch(_told(shop, stopping(1)), "returned", "asks", "scores", part_rows=50)

    def go_on(**asked: Any) -> list[str]:
        told: list[Step] = []
        assert predict_batch(_told(shop, told.append), "returned", "asks", "scores", **asked).rows == 120
        return list(dict.fromkeys(step.detail for step in told if step.name == "give up batch scores"))

    stop()
    assert go_on(fresh=True) == ["asked for afresh"]
    stop()
    assert go_on(version=1) == ["it scored asks with returned"]
    stop()
    shop.lake.overwrite("asks", _rows(shop, "asks"))
    assert go_on() == ["asks has changed"]
    assert go_on() == []


def test_a_damaged_part_is_made_again(shop: Platform, scores: Read) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict_batch(_told(shop, stopping(2)), "returned", "asks", "scores", part_rows=50)
    [part] = (shop.settings.state / "batches").glob("*/part-000001.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    predict_batch(shop, "returned", "asks", "scores")
    assert [row["ask_id"] for row in scores(shop, "scores")] == list(range(120))


def test_who_is_forgotten_is_in_no_unfinished_part(shop: Platform) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict_batch(_told(shop, stopping(1)), "returned", "asks", "scores", part_rows=50)
    forget(shop, "customer", {"customer_id": "c3"})
    with batch_jobs.writing(shop, "scores"):
        assert batch_jobs.unfinished(shop, "scores") is None
    assert predict_batch(shop, "returned", "asks", "scores").rows == shop.lake.snapshot("asks").rows < 120


def _told(platform: Platform, listener: Callable[[Step], None]) -> Platform:
    return open_project(platform.settings.root, user="ann", listener=listener)


def _rows(platform: Platform, table: str) -> Any:
    with platform.engine() as engine:
        return engine.reader(f"SELECT * FROM {engine.scan(platform.lake.snapshot(table))}").read_all()


def _train_again(platform: Platform) -> None:
    from millpond.platform.train import train

    platform.lake.append("people", _rows(platform, "people").slice(0, 0))
    train(open_project(platform.settings.root, user="ann"), "returned", force=True)
    platform.store.set_alias("returned", "champion", 2)
