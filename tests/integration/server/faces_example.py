"""A small platform in memory, for tests of the faces: what a flights project looks like. Not the product's."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from millpond.core.errors import NotFound, RequestError
from millpond.core.ids import new_id
from millpond.core.names import did_you_mean
from millpond.core.time import now
from millpond.monitoring.report import FeatureSkew, SkewExample, SkewReport
from millpond.platform import feature_models as f
from millpond.platform import read_models as m
from millpond.platform import release_models as r
from millpond.platform.events import Acknowledged
from millpond.platform.tiers import Tier

REPORT = """<!doctype html><html><head><meta charset="utf-8"><title>late_arrival 3</title>
<style>body{font:15px system-ui;margin:2rem;background:#fff;color:#222}</style></head>
<body><h1>late_arrival, version 3</h1><p>ROC AUC on the test part: 0.7512</p>
<svg width="320" height="200"><path d="M0 200C40 60 120 20 320 0" fill="none" stroke="teal" stroke-width="3"/></svg>
<p id="script">no script</p><script>document.getElementById("script").textContent = "script ran";
try { parent.document.title; document.title = "reached the parent" } catch (e) { document.title = "kept apart" }
</script></body></html>"""

REQUEST = (
    m.RequestField("origin", "string", True, "key", "JFK", ("JFK", "LGA", "EWR"), "Airport of departure"),
    m.RequestField("scheduled_at", "instant", True, "request", datetime(2013, 12, 20, 22, 15, tzinfo=UTC)),
    m.RequestField("tailnum", "string", False, "key", "N804JB"),
    m.RequestField("carrier", "string", False, "input", "B6", ("UA", "B6", "EV", "DL", "AA")),
    m.RequestField("dest", "string", False, "input", "BOS"),
    m.RequestField("distance", "float64", False, "input", 187.0, description="Miles"),
    m.RequestField("stops", "int64", False, "input", 0),
    m.RequestField("charter", "bool", False, "input", False),
)


class ExamplePlatform:
    """Implements `Reader` and `Operations`."""

    def __init__(self, directory: Path, deployed: m.DeploymentState = "live") -> None:
        self._start = now() - timedelta(hours=2)
        self._report = directory / "report.html"
        self._report.write_text(REPORT)
        self._deployed = deployed
        self.receipts: dict[str, m.Receipt] = {}
        self.champion = 2
        self.promotions: list[m.Promotion] = []
        self.measured: list[SkewReport] = []
        self.released: list[r.ReleaseView] = [_release(self._start)]

    # --- Reader

    def overview(self) -> m.Overview:
        edges = [
            ("table", "raw_flights", "table", "flights"),
            ("table", "airports", "table", "flights"),
            ("table", "raw_weather", "table", "weather"),
            ("table", "flights", "view", "airport_traffic"),
            ("table", "flights", "view", "airport_landings"),
            ("table", "weather", "view", "airport_weather"),
            ("table", "planes", "view", "plane_facts"),
            *(("view", name, "model", "late_arrival") for name in _VIEWS),
            ("table", "flights", "model", "late_arrival"),
            ("table", "flights", "model", "arrival_delay"),
            ("view", "airport_weather", "model", "arrival_delay"),
            ("model", "late_arrival", "deployment", "late_arrival"),
        ]
        return m.Overview(
            "flights",
            tuple(self._table(name) for name in _TABLES),
            tuple(self._view(name) for name in _VIEWS),
            (self._model("late_arrival"), self._model("arrival_delay")),
            (self._deployment(),),
            tuple(m.Edge(m.Reference(a, b), m.Reference(c, d)) for a, b, c, d in edges),
        )

    def table(self, name: str) -> m.TablePage:
        summary = self._table(name)
        if summary.snapshot_id is None:
            return m.TablePage(summary, (), (), (), ())
        columns = (
            m.ColumnView("flight_id", "string", "key"),
            m.ColumnView("origin", "string"),
            m.ColumnView("scheduled_at", "instant", "time"),
            m.ColumnView("dep_delay", "float"),
            m.ColumnView("arr_delay", "float"),
            m.ColumnView("arrived_at", "instant", "known"),
            m.ColumnView("distance", "int"),
        )
        base = datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
        sample = tuple(
            (
                f"UA{1545 + i}-2013-01-01",
                ("EWR", "LGA", "JFK")[i % 3],
                base + timedelta(minutes=i * 7),
                None if i == 7 else float(i * 3 - 5),
                None if i == 7 else float(i * 2 - 11),
                None if i == 7 else base + timedelta(minutes=i * 7 + 200),
                1400 + i,
            )
            for i in range(20)
        )
        snapshots = tuple(
            m.SnapshotView(
                7219002839746010000 - i,
                self._start - timedelta(days=i),
                "overwrite",
                336776 - i * 900,
                "ingested flights.csv",
            )
            for i in range(4)
        )
        return m.TablePage(
            summary,
            columns,
            snapshots,
            self._checks(name),
            sample,
            (m.Reference("view", "airport_traffic"), m.Reference("model", "late_arrival")),
        )

    def features(self, search: str = "") -> list[f.CatalogLine]:
        lines = [
            f.CatalogLine(
                name, feature, f"{name}__{feature}", 'mean("dep_delay", over="1h")', "float",
                "Fahrenheit, at the airport" if feature == "temp" else "", f"What is known of the {entity}.",
                entity, source, every,
                "ann", ("weather",) if source == "weather" else ("traffic", "core"), self._start, ("late_arrival",), 2,
            )
            for name, (entity, source, every, features) in _VIEWS.items()
            for feature in features
        ]  # fmt: skip
        return [each for each in lines if search in (each.name, *(f"tag:{tag}" for tag in each.tags)) or not search]

    def feature_view(self, name: str) -> m.FeatureViewPage:
        summary = self._view(name)
        shares = ("0.0", "0.05", "0.25", "0.5", "0.75", "0.95", "1.0")
        spread = dict(zip(shares, (-3.5, 12.0, 31.25, 54.0, 71.5, 88.0, 100.25), strict=True))
        numbers = f.FeatureStatistics(0.0123, 318, 52.41, spread, ())
        texts = f.FeatureStatistics(0.5, 2, None, {}, (("clear", 163000), ("<b>fog</b>", 673)))
        lines = tuple(
            f.FeatureLine(
                each, 'mean("dep_delay", over="1h")', "float", "dep_delay", "", texts if each == "visib" else numbers
            )
            for each in summary.features
        )
        code = "9d3f6f0d3a4b5c6d7e8f90123456789abcdef012"
        changes = ("mean_delay_1h: over: 2h -> 1h", 'worst removed: max("dep_delay", over="1d")')
        return m.FeatureViewPage(
            summary, lines, "departed_at", "arrived_at", "ann", ("weather", "core"),
            f.Freshness(self._start, self._start, None),
            f.StatisticsBasis("flights", 7219002839746010000, self._start, 327346, 3, 1, False),
            (
                f.LineageStep("raw_flights", (), ("flights.csv.zip",), 7219002839746010000, self._start, 336776, 1),
                f.LineageStep("flights", ("raw_flights", "airports"), (), 7219002839746010001, self._start, 336776, 2),
            ),
            (
                f.ViewVersion(2, "b2c9", self._start, "ann", code, True, True, False, {}, changes),
                f.ViewVersion(1, "a1b2", self._start, "bob", None, False, False, False, {}, ()),
            ),
            (
                f.ViewUse("late_arrival", 3, ("challenger",), 2, False),
                f.ViewUse("late_arrival", 2, ("champion",), 1, False),
            ),
            ("temp: within: 3h -> 6h",),
        )  # fmt: skip

    def model(self, name: str) -> m.ModelPage:
        summary = self._model(name)
        if name != "late_arrival":
            return m.ModelPage(summary, (), ())
        versions = tuple(self._version(n) for n in (3, 2, 1))
        return m.ModelPage(summary, versions, REQUEST, self._deployment(), self.releases(name))

    def releases(self, model: str) -> tuple[r.ReleaseView, ...]:
        self._model(model)
        return tuple(reversed(self.released)) if model == "late_arrival" else ()

    def version(self, model: str, number: int) -> m.VersionPage:
        self._model(model)
        summary = self._version(number)
        metrics = tuple(
            m.MetricLine(part, name, value - shift, base, 0.744 if name == "roc_auc" else None, name != "log_loss")
            for part, shift in (("test", 0.0), ("validation", -0.004))
            for name, value, base in (("roc_auc", 0.7512, 0.5), ("pr_auc", 0.4211, 0.187), ("log_loss", 0.3987, 0.4822))
        )
        refs = tuple(
            m.SnapshotRef(t, 7219002839746010000 + i, self._start, _TABLES[t][0])
            for i, t in enumerate(("flights", "weather", "planes"))
        )
        lineage = m.VersionLineage(
            m.SnapshotRef("training.late_arrival", 5512900348830300123, self._start, 327346),
            refs,
            "9d3f6f0d3a4b5c6d7e8f90123456789abcdef012",
            number == 3,
            "main",
            "3.11.7",
            163,
            "b2c90f31a07d5e44",
            "0f3b2e9f8a7c4d5e9b8a7c6d5e4f3a2b",
        )
        params = {"estimator": "lightgbm", "num_leaves": "63", "learning_rate": "0.05", "seed": "0", "trials": "25"}
        return m.VersionPage(
            summary,
            metrics,
            params,
            {"airport_traffic__mean_delay_1h": "float64", "airport_weather__temp": "float64", "carrier": "string"},
            lineage,
            "/mlflow/#/experiments/1/runs/0f3b2e9f8a7c4d5e9b8a7c6d5e4f3a2b",
            number == 3,
            Tier("compiled", "LGBMClassifier, 63 trees, compared on 5,120 rows", 5120, 0.0, 0.0)
            if number == 3
            else Tier("native", "it was registered before there were plans"),
        )

    def report(self, model: str, number: int) -> Path:
        self._model(model)
        if number != 3:
            raise NotFound(f"{model} version {number} has no report.")
        return self._report

    def receipt(self, prediction_id: str) -> m.Receipt:
        if prediction_id not in self.receipts:
            raise NotFound(f"There is no prediction {prediction_id!r}.")
        return self.receipts[prediction_id]

    def predictions(self, model: str | None = None, limit: int = 50) -> list[m.PredictionLine]:
        newest = sorted(self.receipts.values(), key=lambda r: r.predicted_at, reverse=True)
        return [
            m.PredictionLine(r.id, r.model, r.version, r.predicted_at, r.requested_by, r.answer, r.output, r.outputs)
            for r in newest
            if model in (None, r.model)
        ][:limit]

    def skew(self, model: str, version: int | None = None) -> SkewReport:
        self._model(model)
        found = [each for each in self.measured if each.model == model and version in (None, each.version)]
        if not found:
            raise NotFound(f"The skew of {model} was never measured.")
        return found[-1]

    # --- Operations

    def push(self, table: str, events, user: str) -> Acknowledged:
        self.table(table)
        return Acknowledged(table, len(events), len(events), 0)

    def measure_skew(self, model: str, wanted: m.SkewRequest, user: str) -> SkewReport:
        self._model(model)
        version = wanted.version or self.champion
        self._version(version)
        if wanted.since and wanted.until and wanted.until <= wanted.since:
            raise RequestError("The window ends before it begins.", where="since, until")
        looked_at = min(wanted.sample or 1280, 1280)
        at = datetime(2013, 12, 20, 22, 15, tzinfo=UTC)
        example = SkewExample(
            "p_06f3kd8s1a2b3c4d5e6f7g8h9j", at, 41.25, 43.5, "/predictions/p_06f3kd8s1a2b3c4d5e6f7g8h9j", 17,
            ("B6-1013", "DL-50"), 1, ("AA-1<script>",), 0, (),
            "flights: 1 row was added or changed later, at an instant before the prediction's",
        )  # fmt: skip
        features = (
            FeatureSkew("airport_traffic__mean_delay_1h", "airport_traffic", "a", 1e-9, looked_at, looked_at - 3, 3, 1,
                        0, 0, 2.25, 0.0517, "", (example,)),
            FeatureSkew("plane_facts__seats", "plane_facts", "b", 0.0, 0, 0, 0, 0, 0, looked_at, None, None,
                        "There is no table 'planes'"),
            FeatureSkew("airport_weather__temp", "airport_weather", "c", 0.0, looked_at, looked_at, 0, 0, 0, 0,
                        0.0, 0.0),
        )  # fmt: skip
        report = SkewReport(
            new_id("skew"), model, version, now(), user, 1280, looked_at, wanted.sample, wanted.since, wanted.until,
            self._start, {"flights": 72190028397}, features,
        )  # fmt: skip
        self.measured.append(report)
        return report

    def predict(self, model, rows, as_of, user) -> list[m.Answer]:
        self._model(model)
        answers = []
        for number, row in enumerate(rows):
            for name in row:
                if name not in {each.name for each in REQUEST}:
                    hint = did_you_mean(name, [each.name for each in REQUEST], noun="columns")
                    raise RequestError(f"There is no request column {name!r}.", where=f"row {number}", hint=hint)
            if "origin" not in row:
                raise RequestError("The column 'origin' is missing.", where=f"row {number}, origin")
            if not re.fullmatch("[A-Z]{3}", str(row["origin"])):
                where, hint = f"row {number}, origin", "three capital letters, such as JFK"
                raise RequestError(f"{row['origin']!r} is no airport.", where=where, hint=hint)
            answers.append(self._answer(row, as_of or datetime(2013, 12, 20, 22, 15, tzinfo=UTC), user))
        return answers

    def promote(self, model: str, version: int, why: str, user: str) -> m.Promotion:
        self._model(model)
        self._version(version)
        done = m.Promotion(model, version, self.champion, user, why)
        self.champion = version
        self.promotions.append(done)
        return done

    def start_release(self, model: str, wanted: r.ReleaseRequest, user: str) -> r.ReleaseView:
        self._model(model)
        self._version(int(wanted.version))
        begun = replace(
            _release(now()), version=int(wanted.version), why=wanted.why, who=user, id=len(self.released) + 1
        )
        self.released.append(begun)
        return begun

    def move_release(self, model: str, move: r.ReleaseMove, why: str, user: str) -> r.ReleaseView:
        self._model(model)
        if not self.released:
            raise NotFound(f"No release of {model} is under way")
        state = {"advance": "stepping", "rollback": "rolled back", "abort": "aborted"}[move]
        step = self.released[-1].step + (move == "advance")
        self.released[-1] = replace(self.released[-1], state=state, step=step, active=move == "advance", why=why)
        return self.released[-1]

    # --- pieces

    def _answer(self, row, as_of, user) -> m.Answer:
        output = 0.6231 if row["origin"] == "JFK" else 0.1187
        known = as_of - timedelta(minutes=9)
        inputs = (
            m.FeatureValue(
                "airport_traffic__mean_delay_1h", 41.25, known, 17, ("B6-1013", "DL-50"), "flights", 72190028397
            ),
            m.FeatureValue("airport_traffic__departures_3h", 61, known, 61, ("B6-1013",), "flights", 72190028397),
            m.FeatureValue("airport_weather__temp", 39.02, known, 1, ("JFK 2013-12-20T22",), "weather", 72190028398),
            m.FeatureValue("plane_facts__seats", None, None, 0, (), "planes", 72190028399),
            m.FeatureValue("carrier", row.get("carrier")),
        )
        receipt = m.Receipt(
            new_id("p"), "late_arrival", self.champion, "classification", output, output > 0.31, 0.31, now(), as_of,
            user, 3.42, row, inputs, (m.SnapshotRef("flights", 72190028397), m.SnapshotRef("weather", 72190028398)),
            "9d3f6f0d3a4b5c6d7e8f90123456789abcdef012", False, "0f3b2e9f8a7c4d5e", "ann", self._start,
        )  # fmt: skip
        self.receipts[receipt.id] = receipt
        return m.Answer(receipt.id, receipt.model, receipt.version, output, receipt.answer, receipt.threshold, as_of)

    def _table(self, name: str) -> m.TableSummary:
        if name not in _TABLES:
            raise NotFound(f"There is no table {name!r}.", hint=did_you_mean(name, _TABLES, noun="tables"))
        rows, state, inputs = _TABLES[name]
        snapshot = None if rows is None else 7219002839746010000
        changed = None if rows is None else self._start
        text = "Every departure from New York in 2013" if name == "flights" else ""
        return m.TableSummary(name, text, rows, snapshot, changed, state, inputs)

    def _view(self, name: str) -> m.FeatureViewSummary:
        if name not in _VIEWS:
            raise NotFound(f"There is no feature view {name!r}.", hint=did_you_mean(name, _VIEWS))
        entity, source, every, features = _VIEWS[name]
        key = {"airport": ("origin",), "plane": ("tailnum",)}[entity]
        return m.FeatureViewSummary(name, "", entity, key, source, every, features, ("late_arrival",))

    def _model(self, name: str) -> m.ModelSummary:
        if name == "arrival_delay":
            return m.ModelSummary(
                name, "", "regression", "arr_delay", "flights", ("airport_weather",), "rmse", False, 0, None, None
            )
        if name != "late_arrival":
            raise NotFound(f"There is no model {name!r}.", hint=did_you_mean(name, ["late_arrival", "arrival_delay"]))
        text = "Does a flight arrive half an hour late or more, told at its scheduled departure?"
        champion, latest = self._version(self.champion), self._version(3)
        label = 'col("arr_delay") >= 30'
        views = tuple(_VIEWS)
        return m.ModelSummary(
            name, text, "classification", label, "flights", views, "roc_auc", True, 3, champion, latest
        )

    def _version(self, number: int) -> m.VersionSummary:
        if number not in (1, 2, 3):
            raise NotFound(f"late_arrival has no version {number}.", hint="versions: 1, 2, 3")
        auc = {1: 0.7012, 2: 0.7440, 3: 0.7512}[number]
        gates = (
            m.GateView("roc_auc >= 0.7", True, f"{auc}"),
            m.GateView("roc_auc better than champion", number != 1, "0.7440"),
        )
        aliases = ("champion",) if number == self.champion else ("challenger",) if number == 3 else ()
        metrics = {"roc_auc": auc, "pr_auc": auc - 0.33, "log_loss": 1.15 - auc, "f1": 0.4412}
        at = self._start - timedelta(days=3 - number)
        return m.VersionSummary("late_arrival", number, at, "ann", aliases, metrics, gates, 21.4 + number)

    def _deployment(self) -> m.DeploymentSummary:
        return m.DeploymentSummary(
            "late_arrival", self.champion, self._deployed, self._start, "ann", 1280 + len(self.receipts),
            "/v2/models/late_arrival/infer",
        )  # fmt: skip

    def _checks(self, table: str) -> tuple[m.CheckView, ...]:
        fails = _TABLES[table][1] == "warning"
        return (
            m.CheckView("in_range(dep_delay, -60..1500)", "warn", not fails, 3 if fails else 0, 336776,
                        ("UA1545-2013-01-01", "EV4140-2013-04-11") if fails else (), self._start),
            m.CheckView("not_null(origin, dest)", "block", True, 0, 336776, (), self._start),
            m.CheckView("unique(flight_id)", "block", True, 0, 336776, (), self._start),
        )  # fmt: skip


_TABLES = {
    "raw_flights": (336776, "passed", ()),
    "raw_weather": (26115, "none", ()),
    "airports": (1458, "none", ()),
    "flights": (336776, "warning", ("raw_flights", "airports")),
    "weather": (26115, "passed", ("raw_weather",)),
    "planes": (3322, "failed", ()),
    "gates_of_the_day": (None, "none", ()),
}
_VIEWS = {
    "airport_traffic": (
        "airport",
        "flights",
        None,
        ("mean_delay_1h", "mean_delay_3h", "mean_delay_24h", "departures_1h", "departures_3h"),
    ),
    "airport_landings": ("airport", "flights", None, ("worst_arrival_24h",)),
    "airport_weather": ("airport", "weather", "1h", ("temp", "wind_speed", "visib")),
    "plane_facts": ("plane", "planes", None, ("seats", "year")),
}


def _release(started: datetime) -> r.ReleaseView:
    """Version 3 at the first of its steps."""
    return r.ReleaseView(
        id=1,
        model="late_arrival",
        version=3,
        against=2,
        kind="release",
        state="stepping",
        active=True,
        step=1,
        share=0.05,
        shares=(0.05, 0.25),
        every="10m",
        shadow=None,
        shadows=True,
        requests=100,
        rules=("errors <= 0.01 of the requests",),
        who="admin",
        why="passed 2 gates",
        started_at=started,
        step_started_at=started,
        ended_at=None,
        findings=(
            r.RuleFinding("errors <= 0.01 of the requests", "holds", "1 of 812 requests failed (1 MillpondError)"),
            r.RuleFinding("at least 1,000 requests", "waits", "812 so far"),
        ),
        variants=(
            r.VariantCounts(2, "live", 15_420, 15_900, 0, 3, "", 0.412, 1.9, 0, None, None, 0),
            r.VariantCounts(3, "canary", 812, 840, 1, 0, "1 MillpondError", 0.433, 2.1, 810, 0.0132, 0.21, 4),
        ),
    )
