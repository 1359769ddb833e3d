"""Looked up within the event loop, features are what the lake's featurizer computes; else they are not told at all."""

import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from millpond.core.time import from_microseconds, to_microseconds
from millpond.platform.bundles import describe_features, inline_views
from millpond.platform.events import land_or_wait, push
from millpond.platform.featurizer_host import handler, open_featurizer
from millpond.platform.inline_features import InlineFeatures, TableWatch
from millpond.platform.online import refresh
from millpond.platform.platform import open_project
from millpond.platform.tables import ingest_declared
from millpond.platform.versions import LoadedVersion, request_columns
from millpond.serving.engine.ports import AS_OF
from millpond.serving.ports import ServedModel
from millpond.serving.routing import served_to_json
from millpond.serving.rows import Rows

DEFINITIONS = """
import millpond as mp

raw = mp.Table("raw", key="id", time="moment", source="raw.csv")
hourly = mp.Table("hourly", key="id", time="moment", source="raw.csv")
place = mp.Entity("place", key="origin", unknown="allow")
city = mp.Entity("city", key="town")

recent = mp.Features(
    "recent", entity=place, source=raw,
    n=mp.count(over="5h"), mean=mp.mean("temp", over="5h"), last=mp.latest("temp"), sky=mp.latest("sky"),
)
steady = mp.Features("steady", entity=city, source=hourly, every="1h", n=mp.count(), top=mp.max("temp"))
warm = mp.Model(
    "warm", task=mp.Classification(label=mp.col("temp") >= 5), examples=raw, at="moment",
    inputs=[recent, steady, "rank"], estimator="lightgbm",
)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "millpond.toml").write_text('[project]\nname = "p"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    start = int(time.time()) - 40 * 3600
    rows = []
    for n in range(72):
        place = f"{('JFK', 'LGA', 'EWR')[n % 3]},{('NY', 'NJ')[n % 2]}"
        rows.append(f"{n},{place},{_text(start + n * 1800)},{n % 10},{'c' * (n % 4)},{n % 7}.5")
    (tmp_path / "raw.csv").write_text("id,origin,town,moment,temp,sky,rank\n" + "\n".join(rows) + "\n")
    platform = open_project(tmp_path)
    ingest_declared(platform)
    refresh(platform)
    return platform


def _text(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _loaded(platform):
    model = platform.definitions.model("warm")
    inputs = {column: "float64" for view in model.views for column in view.columns} | {"rank": "float64"}
    inputs |= {"recent__n": "int64", "steady__n": "int64", "recent__sky": "string"}
    columns = tuple(request_columns(model, platform.lake.snapshot("raw")))
    served = ServedModel("warm", 1, "classification", 0.5, columns, "moment", inputs)
    return LoadedVersion(None, served, model, platform.settings.root)  # type: ignore[arg-type]


@pytest.fixture
def inline(project):
    loaded = _loaded(project)
    watch = TableWatch(project.lineage, project.online)
    described = describe_features(project, loaded)
    assert described["inline"]
    features = InlineFeatures(loaded.served, inline_views(described), project.online, watch)
    yield features
    watch.close()


def _wait(features, rows):
    deadline = time.monotonic() + 10
    while (found := features.look_up(rows, None)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _same(project, rows, found):
    loaded = _loaded(project)
    with project.engine() as engine:
        lake = handler(open_featurizer(project, loaded, engine, online=False), loaded.served)
        land_or_wait(project, ["raw"])
        instants = sorted(set(found.as_of))
        assert len(instants) == 1
        asked = Rows(rows.count, (*rows.names, AS_OF), (*rows.given, [instants[0]] * rows.count))
        expected, _ = lake(asked)
    for row in range(rows.count):
        mine, theirs = found.inputs.values(row), expected.values(row)
        theirs.pop(AS_OF)
        assert mine == pytest.approx(theirs, nan_ok=True)


@pytest.mark.slow
def test_values_are_those_of_the_lake_before_and_after_a_push(project, inline):
    rows = Rows.of({"origin": ["JFK", "EWR", "ZZZ"], "town": ["NY", "NJ", "NY"], "rank": [1.0, None, 3.0]})
    found = _wait(inline, rows)
    assert found is not None
    assert found.inputs.names == tuple(_loaded(project).served.inputs)
    _same(project, rows, found)
    moment = from_microseconds(to_microseconds(datetime.now(UTC)) - 1_000_000)
    event = {"id": 1000, "origin": "JFK", "town": "NY", "moment": moment, "temp": 77, "sky": None, "rank": 1.5}
    push(project, "raw", [event])
    after = inline.look_up(rows, None)
    assert after is not None
    assert after.events["raw"] == 1
    assert after.inputs.values(0)["recent__last"] == 77
    assert after.inputs.values(2)["recent__n"] == 0
    _same(project, rows, after)


@pytest.mark.slow
def test_what_is_not_exactly_there_is_left_to_the_featurizer_process(project, inline):
    rows = Rows.of({"origin": ["JFK"], "town": ["NY"], "rank": [1.0]})
    assert _wait(inline, rows) is not None
    assert inline.look_up(Rows.of({"origin": ["JFK"], "town": ["ZZ"], "rank": [1.0]}), None) is None, "unknown city"
    assert inline.look_up(Rows.of({"origin": [None], "town": ["NY"], "rank": [1.0]}), None) is None, "no key"
    assert inline.look_up(rows, 1_000_000) is None, "another hour's grid"
    (project.settings.root / "raw.csv").write_text(
        "id,origin,town,moment,temp,sky,rank\n5,JFK,NY,2020-01-01T00:00:00Z,1,c,2\n"
    )
    ingest_declared(project)
    deadline = time.monotonic() + 10
    while inline.look_up(rows, None) is not None:
        assert time.monotonic() < deadline, "a table that was written again is not noticed"
        time.sleep(0.05)


SERVING = """
import json, sys, time
from millpond.server import worker  # what a serving process begins with
from millpond.platform.bundles import inline_views
from millpond.platform.inline_features import InlineFeatures, TableWatch
from millpond.serving.routing import served_from_json
from millpond.serving.rows import Rows

told = json.loads(sys.argv[2])
platform = worker.open_project(sys.argv[1])
watch = TableWatch(platform.lineage, platform.online)
features = InlineFeatures(served_from_json(told["served"]), inline_views(told["features"]), platform.online, watch)
rows = Rows.of({"origin": ["JFK"], "town": ["NY"], "rank": [1.0]})
until = time.monotonic() + 20
while (found := features.look_up(rows, None)) is None and time.monotonic() < until:
    time.sleep(0.02)
watch.close()
print(json.dumps({"found": found is not None, "loaded": sorted({each.partition(".")[0] for each in sys.modules})}))
"""


@pytest.mark.slow
def test_looking_features_up_loads_no_heavy_library(project):
    loaded = _loaded(project)
    told = {"served": served_to_json(loaded.served), "features": describe_features(project, loaded)}
    command = [sys.executable, "-c", SERVING, str(project.settings.root), json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(done.stdout)
    assert said["found"], done.stderr
    assert "lmdb" in said["loaded"]
    heavy = {"pyiceberg", "pyarrow", "pandas", "sqlalchemy", "mlflow", "duckdb", "sklearn", "scipy", "lightgbm"}
    assert not heavy & set(said["loaded"])


@pytest.mark.slow
def test_a_batch_with_several_instants_keeps_its_order(project):
    loaded = _loaded(project)
    random.seed(7)
    now = to_microseconds(datetime.now(UTC))
    instants = [random.choice([None, now - 3_600_000_000 * random.randrange(30)]) for _ in range(12)]
    origins = [random.choice(["JFK", "LGA", "EWR"]) for _ in instants]
    rows = Rows.of({"origin": origins, "town": ["NY"] * 12, "rank": [float(n) for n in range(12)], AS_OF: instants})
    with project.engine() as engine:
        handle = handler(open_featurizer(project, loaded, engine, online=True), loaded.served)
        together, meta = handle(rows)
        assert together.columns["rank"] == pytest.approx([float(n) for n in range(12)])
        assert set(meta["snapshots"]) == {"raw", "hourly"}
        for row in range(12):
            alone, _ = handle(rows.slice(row, row + 1))
            if instants[row] is not None:
                assert alone.values(0) == together.values(row)
