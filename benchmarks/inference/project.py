"""The project and the models of the inference benchmark, from fixed seeds, and what each model says to rows.

`python -m benchmarks.inference.project make FOLDER` makes

FOLDER/project     a Millpond project, ingested and trained: models `mixed`, `sampled`, which is the same with 1 % of
                   its answers logged, `neighbours`, and `keyed`, whose second version answers 10 % of the requests
FOLDER/models      for every server: `lightgbm`, saved by MLflow, and copies of the versions `mixed`, `neighbours`
FOLDER/cases       for each model JSON: names and types of columns, rows, and the probability of each by the model
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import processes

WIDTH, TREES, LEAVES = 30, 200, 31
ROWS, EXAMPLES, VISITS, FEW = 1_000, 20_000, 10_000, 3_000  # rows in a case; examples of the models
ACCOUNTS, PAYMENTS, QUESTIONS = 2_000, 5, 10_000
STRINGS = {"city": 200, "shop": 50, "kind": 12, "brand": 5}
NUMBERS = [f"n{index}" for index in range(10)]
TYPES = {**dict.fromkeys(NUMBERS, "float64"), **dict.fromkeys(STRINGS, "string"), "member": "bool"}


def make(folder: Path) -> None:
    for name in ("project", "models", "cases"):
        (folder / name).mkdir()
    _lightgbm(folder)
    _project(folder / "project")
    for name, inputs in (("mixed", list(TYPES)), ("neighbours", [*NUMBERS, "shop", "kind", "member"])):
        directory = folder / "models" / name
        shutil.copytree(versions(folder / "project", name)[-1], directory)
        frame = _visits(99, ROWS)[inputs]
        answers = probabilities(directory, frame.astype({"member": float}))
        _case(folder, name, {each: TYPES[each] for each in inputs}, _records(frame), answers)
    shutil.copy(folder / "cases" / "mixed.json", folder / "cases" / "sampled.json")
    _keyed(folder)


def _lightgbm(folder: Path) -> None:
    """A booster trained on a frame and saved with the signature that MLflow infers from it, named columns.

    That is what MLflow's own pages show, and what its autologging saves. It saves a tensor's signature only of models
    that were trained on a bare matrix; its server then makes no frame, and answers several times as often.
    """
    import lightgbm
    import mlflow.lightgbm
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    chance = np.random.default_rng(1)
    columns = [f"f{index}" for index in range(WIDTH)]
    frame = pd.DataFrame(chance.normal(size=(EXAMPLES, WIDTH)).round(6), columns=columns)
    score = frame["f0"] * frame["f1"] + np.sin(3 * frame["f2"]) + frame[columns[3:8]].sum(axis=1) / 3
    labels = (score + chance.normal(size=EXAMPLES) > 0).astype(int)
    parameters = {"objective": "binary", "num_leaves": LEAVES, "num_threads": 1, "seed": 1, "verbosity": -1}
    booster = lightgbm.train(
        {**parameters, "deterministic": True, "force_col_wise": True},
        lightgbm.Dataset(frame, labels),
        num_boost_round=TREES,
    )
    mlflow.lightgbm.save_model(
        booster,
        str(folder / "models" / "lightgbm"),
        signature=infer_signature(frame, booster.predict(frame)),
        input_example=frame.head(),
        pip_requirements=[f"lightgbm=={lightgbm.__version__}"],
    )
    rows = chance.normal(size=(ROWS, WIDTH)).round(6)
    _case(folder, "lightgbm", dict.fromkeys(columns, "float64"), rows.tolist(), booster.predict(rows, num_threads=1))


def _visits(seed: int, count: int) -> Any:
    """Ten numbers, four strings, a boolean, and a label that depends on them."""
    import numpy as np
    import pandas as pd

    chance = np.random.default_rng(seed)
    numbers = {name: chance.normal(size=count).round(6) for name in NUMBERS}
    codes = {name: (size * chance.random(count) ** 2).astype(int) for name, size in STRINGS.items()}
    member = chance.random(count) < 0.3
    score = numbers["n0"] + numbers["n1"] * numbers["n2"] + codes["kind"] % 3 + (codes["city"] % 7) / 3 - member
    return pd.DataFrame(
        {
            "visit": range(count),
            "visited_at": pd.date_range("2026-01-01", periods=count, freq="min", tz="UTC").as_unit("us"),
            **numbers,
            **{name: [f"{name}-{code}" for code in each] for name, each in codes.items()},
            "member": member,
            "bought": (score + chance.normal(size=count) > 1.5).astype(int),
        }
    )


def _history(today: datetime) -> tuple[Any, Any]:
    """Payments of accounts two to three days ago and before, and questions about them since yesterday."""
    import numpy as np
    import pandas as pd

    chance = np.random.default_rng(3)
    count = ACCOUNTS * PAYMENTS
    days = np.where(chance.random(count) < 0.5, 2, 15) + chance.random(count)  # no window of the features ends there
    paid = [today - timedelta(days=each) for each in days]
    payments = pd.DataFrame({"payment": range(count), "account": np.arange(count) % ACCOUNTS, "paid_at": paid})
    for index in range(18):
        payments[f"x{index}"] = chance.normal(size=count).round(6)
    payments["paid_at"] = payments["paid_at"].astype("datetime64[us, UTC]")
    latest = payments.sort_values("paid_at").groupby("account").tail(1).set_index("account")
    accounts = chance.integers(0, ACCOUNTS, QUESTIONS)
    known = latest.loc[accounts]
    score = (known["x0"] + known["x1"] * known["x2"] + np.sin(3 * known["x3"])).to_numpy()
    asked = [today - timedelta(days=1) + timedelta(seconds=8 * each) for each in range(1, QUESTIONS + 1)]
    questions = pd.DataFrame({"question": range(QUESTIONS), "account": accounts, "asked_at": asked})
    questions["asked_at"] = questions["asked_at"].astype("datetime64[us, UTC]")
    questions["late"] = (score + chance.normal(size=QUESTIONS) > 0).astype(int)
    return payments, questions


def _project(folder: Path) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    payments, questions = _history(today)
    tables = {"visits": _visits(2, VISITS), "few": _visits(4, FEW), "payments": payments, "asked": questions}
    for name, frame in tables.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "millpond.toml").write_text('[project]\nname = "inference"\n')
    definitions = Path(__file__).with_name("project_definitions.py").read_text()
    (folder / "definitions.py").write_text(definitions)
    millpond(folder, "ingest")
    millpond(folder, "train")
    millpond(folder, "feature", "refresh")
    millpond(folder, "register", str(folder.parent / "models" / "lightgbm"), "--name", "lightgbm")
    millpond(folder, "deploy", "lightgbm", "1")
    # The second version of `keyed` becomes its canary: as large, from another seed.
    (folder / "definitions.py").write_text(definitions.replace('"random_state": 0', '"random_state": 1'))
    millpond(folder, "train", "keyed")


def millpond(folder: Path, *arguments: str) -> str:
    """Run a command in the project; what it printed.

    Raises:
        SystemExit: It failed; what it said is quoted.
    """
    command = [str(Path(sys.executable).with_name("millpond")), "--project", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=600)
    if done.returncode:
        raise SystemExit(f"millpond {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def versions(project: Path, model: str) -> list[Path]:
    """The directories of a model's versions in MLflow's format, oldest first."""
    found = (project / ".millpond" / "artifacts" / model / "models").glob("*/artifacts")
    return sorted(found, key=lambda path: (path / "MLmodel").stat().st_mtime)


def probabilities(directory: Path, frame: Any) -> Any:
    """What the bare scikit-learn pipeline of a version says."""
    import cloudpickle

    with (directory / "model.pkl").open("rb") as file:
        return cloudpickle.load(file).predict_proba(frame)[:, 1]


def _records(frame: Any) -> list[list[Any]]:
    return [list(row) for row in frame.itertuples(index=False, name=None)]


def _keyed(folder: Path) -> None:
    """An account's features now, in plain pandas: its last payment, and how many there were within 7 and 30 days."""
    import pandas as pd

    payments = pd.read_parquet(folder / "project" / "payments.parquet").sort_values("paid_at")
    recent = payments[payments["paid_at"] >= datetime.now(UTC) - timedelta(days=7)]
    frame = payments.groupby("account").tail(1).set_index("account").sort_index()[[f"x{each}" for each in range(18)]]
    frame.insert(0, "payments_7d", recent.groupby("account").size().reindex(frame.index, fill_value=0))
    frame.insert(1, "payments_30d", payments.groupby("account").size())
    frame = frame.iloc[:: ACCOUNTS // ROWS].add_prefix("habits__").astype(float)
    answers = [probabilities(each, frame) for each in versions(folder / "project", "keyed")]
    _case(folder, "keyed", {"account": "int64"}, [[int(key)] for key in frame.index], *answers)


def _case(
    folder: Path,
    model: str,
    types: Mapping[str, str],
    rows: Sequence[Sequence[Any]],
    answers: Sequence[float],
    canary: Sequence[float] = (),
) -> None:
    case = {"types": types, "rows": rows, "answers": list(map(float, answers)), "canary": list(map(float, canary))}
    (folder / "cases" / f"{model}.json").write_text(json.dumps(case))


def main() -> None:
    make(Path(sys.argv[2]))
    processes.tell()


if __name__ == "__main__":
    main()
