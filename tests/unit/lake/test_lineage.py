"""What the lineage reads without PyIceberg is what PyIceberg says; where it cannot be read, it is not guessed."""

import shutil
import subprocess
import sys
from datetime import timedelta

import pyarrow as pa
import pytest

from millpond.core.errors import Unavailable
from millpond.lake.catalog import metadata_location, read_catalog
from millpond.lake.iceberg import IcebergLake
from millpond.lake.lineage import BASE, LANDED, Lineage, base_of

ROWS = pa.table({"id": [1, 2]})


def _landed(lake, table="orders"):
    before = lake.snapshot(table)
    return lake.append(table, ROWS, properties={LANDED: "1-2", BASE: base_of(before.id, before.properties)})


@pytest.mark.parametrize("table", ["orders", "events.orders"])
def test_it_is_what_the_snapshots_of_the_lake_say(lake, table):
    lineage = Lineage(lake.root)
    for write in (lake.append, lake.append, None, None, lake.overwrite, None, lake.append, None):
        made = _landed(lake, table) if write is None else write(table, ROWS)
        history = lake.history(table)
        bases = {each.id: base_of(each.id, each.properties) for each in history}
        for each in history:
            assert lineage.only_landed_since(table, each.id) == (bases[each.id] == bases[made.id])
    with read_catalog(lake.root) as catalog:
        assert metadata_location(catalog, table) == lake.require(table).metadata_location


def test_what_changes_no_snapshot_changes_no_lineage(lake):
    first = lake.append("orders", ROWS)
    lineage = Lineage(lake.root)
    assert lineage.only_landed_since("orders", first.id)
    lake.pin(first, "kept")
    assert lineage.only_landed_since("orders", first.id)


def test_an_expired_snapshot_has_no_lineage(lake):
    first, last = lake.append("orders", ROWS), None
    for _ in range(3):
        last = _landed(lake)
    lineage = Lineage(lake.root)
    assert lineage.only_landed_since("orders", first.id)
    lake.expire("orders", keep_last=1, older_than=timedelta(0))
    assert not lineage.only_landed_since("orders", first.id)
    assert lineage.only_landed_since("orders", last.id)


def test_a_table_that_is_not_there_has_none(lake):
    first = lake.append("orders", ROWS)
    lineage = Lineage(lake.root)
    assert not lineage.only_landed_since("others", first.id)
    assert lineage.only_landed_since("orders", first.id)
    lake.drop("orders")
    assert not lineage.only_landed_since("orders", first.id)


def test_it_reads_a_lake_that_was_moved_and_that_nobody_writes_to(lake, tmp_path):
    first = lake.append("orders", ROWS)
    lake.catalog.engine.dispose()
    moved = shutil.move(lake.root, tmp_path / "a place 100%")
    assert Lineage(moved).only_landed_since("orders", first.id)
    assert IcebergLake(moved).snapshot("orders").id == first.id


def test_what_cannot_be_read_is_said(lake, tmp_path):
    with pytest.raises(Unavailable, match="catalog"):
        Lineage(tmp_path / "nowhere").only_landed_since("orders", 1)
    assert not (tmp_path / "nowhere").exists()
    first = lake.append("orders", ROWS)
    lineage = Lineage(lake.root)
    assert lineage.only_landed_since("orders", first.id)
    second = lake.append("orders", ROWS)
    path = lake.path(lake.require("orders").metadata_location)
    whole = path.read_bytes()
    for damaged in (whole[:100], b"[]", b'{"snapshots": [{"snapshot-id": 1, "summary": {"millpond.events": "1-2"}}]}'):
        path.write_bytes(damaged)
        with pytest.raises(Unavailable, match="metadata"):
            lineage.only_landed_since("orders", first.id)
    path.unlink()
    with pytest.raises(Unavailable, match="metadata"):
        lineage.only_landed_since("orders", first.id)
    path.write_bytes(whole)
    assert lineage.only_landed_since("orders", second.id)
    assert not lineage.only_landed_since("orders", first.id)
    lineage.close()
    assert lineage.only_landed_since("orders", second.id)


def test_asking_loads_no_heavy_library(lake):
    first = lake.append("orders", ROWS)
    program = (
        "import sys; from pathlib import Path; from millpond.lake.lineage import Lineage\n"
        f"assert Lineage(Path({str(lake.root)!r})).only_landed_since('orders', {first.id})\n"
        "print({'pyiceberg', 'pyarrow', 'sqlalchemy', 'pandas', 'duckdb', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
