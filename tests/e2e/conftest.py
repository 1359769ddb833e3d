"""Projects that are walked through the command line, as a person would."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Project:
    """A project's folder, and the `millpond` command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("millpond")), "--project", str(self.folder), *arguments]

    def run(self, *arguments: str, code: int = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command; its exit code must be `code`."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=timeout, cwd=self.folder
        )
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json; what it printed."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments: str, code: int) -> dict[str, str]:
        """Run a command that must fail with `code`; the error as data, which also stands on stderr in words."""
        done = self.run(*arguments, "--json", code=code)
        error: dict[str, str] = json.loads(done.stdout)
        assert error["what"].splitlines()[0] in done.stderr
        return error

    @staticmethod
    def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
        """Return when the condition holds; it must within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)

    @contextmanager
    def up(self) -> Iterator[httpx.Client]:
        """`millpond up` on a free port, ready to predict, and a client with the local token."""
        with self.serve() as server:
            yield server.client

    @contextmanager
    def serve(self) -> Iterator["Server"]:
        """`millpond up` on free ports, ready to predict; ended with all that it started when the block ends."""
        log = self.folder / "up.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                self.command("up", "--port", "0", "--json"),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            announced = ""
            while not announced.rstrip().endswith("}"):
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, log.read_text()
                announced += line
            addresses = json.loads(announced)
            token = (self.folder / ".millpond" / "token").read_text().strip()
            headers = {"authorization": f"Bearer {token}", "x-test-login": addresses["login"]}
            with httpx.Client(base_url=addresses["url"], headers=headers, timeout=60) as client:
                self.wait_for(lambda: client.get("/v2/health/ready").status_code == 200)
                yield Server(addresses["url"], addresses["serving"], addresses["grpc"], token, client, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@dataclass(frozen=True)
class Server:
    """A running `millpond up`.

    Attributes:
        url: The one port of everything.
        serving: Where workers answer predictions directly, over HTTP.
        grpc: The same over gRPC, such as "127.0.0.1:8323".
        token: The local token.
        client: Of `url`, with the token.
        process: The control process; the leader of a process group of its own.
    """

    url: str
    serving: str
    grpc: str
    token: str
    client: httpx.Client
    process: "subprocess.Popen[str]"

    def infer(self, model: str, inputs: dict[str, Any], *, version: str = "", timeout: float = 60) -> httpx.Response:
        """Ask a worker for predictions; `inputs` are texts or numbers by name."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.client.post(self.serving + path, json={"inputs": tensors(inputs)}, timeout=timeout)

    @property
    def authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def processes(self) -> list[int]:
        """Ids of the control process and of all that it, and they, have started."""
        return [self.process.pid, *descendants(self.process.pid)]

    def children(self) -> dict[str, int]:
        """Ids of the processes that are kept running, by name."""
        told = self.client.get("/api/v1/status").json()["children"]
        return {each["name"]: each["pid"] for each in told if each["pid"] is not None}


def descendants(process: int) -> list[int]:
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for started in (task / "children").read_text().split():
                found += [int(started), *descendants(int(started))]
    return found


def tensors(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Inputs of a request: name -> texts, numbers, or rows of numbers."""
    found = []
    for name, values in inputs.items():
        shape = [len(values), len(values[0])] if isinstance(values[0], list) else [len(values)]
        datatype = "BYTES" if isinstance(values[0], str) else "FP64"
        found.append({"name": name, "shape": shape, "datatype": datatype, "data": values})
    return found


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The flights example, walked once: ingested, trained, promoted."""
    folder = tmp_path_factory.mktemp("flights")
    for name in ("millpond.toml", "definitions.py", "sources.py", "flights.sql"):
        shutil.copy(ROOT / "examples" / "flights" / name, folder)
    project = Project(folder)
    project.run("ingest")
    project.run("train")
    return project


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A small project that nothing has been done with yet: 1,500 orders of 60 customers, some sent back."""
    write_orders(tmp_path / "orders.csv")
    (tmp_path / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text(SHOP)
    return Project(tmp_path)


@pytest.fixture(scope="session")
def trained_shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shop, ingested and trained; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("shop")
    write_orders(folder / "orders.csv")
    (folder / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (folder / "definitions.py").write_text(SHOP)
    project = Project(folder)
    project.run("ingest")
    project.run("train")
    return project


@pytest.fixture
def walked(trained_shop: Project, tmp_path: Path) -> Project:
    """A trained shop of the test's own."""
    shutil.copytree(trained_shop.folder, tmp_path / "shop")
    return Project(tmp_path / "shop")


@pytest.fixture(scope="session")
def inference_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that Millpond did not train, in MLflow's format.

    "lgb" is a LightGBM booster of 30 columns without names, "knn" a scikit-learn pipeline that is not compiled, "own"
    a class of the user's own with four outputs.
    """
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="session")
def lgb_shop(trained_shop: Project, inference_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The trained shop with "lgb" deployed too, so that nothing serves in a process of its own."""
    project = Project(tmp_path_factory.mktemp("inference") / "shop")
    shutil.copytree(trained_shop.folder, project.folder)
    project.run("register", str(inference_models / "lgb"), "--name", "lgb")
    project.run("deploy", "lgb", "1")
    return project


@pytest.fixture(scope="session")
def inference_shop(lgb_shop: Project, inference_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with "knn" and "own", which serve in processes of their own."""
    project = Project(tmp_path_factory.mktemp("inference") / "shop")
    shutil.copytree(lgb_shop.folder, project.folder)
    for name in ("knn", "own"):
        project.run("register", str(inference_models / name), "--name", name)
        project.run("deploy", name, "1")
    return project


def save_models(folder: Path) -> None:
    import lightgbm
    import mlflow
    import numpy as np
    import pandas as pd
    import sklearn
    from mlflow.models import infer_signature
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class Own(mlflow.pyfunc.PythonModel):
        """Of a module that is nowhere, and so pickled whole."""

        def predict(self, context, model_input, params=None):
            number, word = model_input["number"], model_input["word"]
            return pd.DataFrame(
                {
                    "double": number * 2.0,
                    "length": word.str.len().astype("int64"),
                    "long": word.str.len() > 3,
                    "shout": word.str.upper() + "!",
                }
            )

    chance = np.random.default_rng(7)
    wide = chance.normal(size=(600, 30))
    target = (wide[:, 0] * wide[:, 1] + np.abs(wide[:, 2]) > 0.6).astype(float)
    settings = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(wide, target), num_boost_round=40)
    mlflow.lightgbm.save_model(
        booster,
        folder / "lgb",
        signature=infer_signature(wide[:5], booster.predict(wide[:5])),
        pip_requirements=[f"lightgbm=={lightgbm.__version__}"],
    )
    small = pd.DataFrame(wide[:200, :3], columns=["height", "width", "depth"])
    nearest = make_pipeline(StandardScaler(), KNeighborsRegressor(5)).fit(small, wide[:200, 3])
    mlflow.sklearn.save_model(
        nearest,
        folder / "knn",
        signature=infer_signature(small, nearest.predict(small)),
        serialization_format="cloudpickle",
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
    )
    words = pd.DataFrame({"number": [1.5, -2.0], "word": ["pond", "né"]})
    mlflow.pyfunc.save_model(
        folder / "own",
        python_model=Own(),
        signature=infer_signature(words, Own().predict(None, words)),
        input_example=words,
        pip_requirements=["pandas"],
    )


def write_orders(path: Path, rows: int = 1500) -> None:
    lines = ["order_id,customer_id,ordered_at,category,amount,returned"]
    for number in range(rows):
        customer = number * 7919 % 60
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + number * 3600))
        category = ("books", "shoes", "shirts")[number % 3]
        returned = int((customer % 5 == 0) ^ (number * 31 % 10 == 0))
        lines.append(f"o{number},c{customer},{moment},{category},{number % 97 + 0.5},{returned}")
    path.write_text("\n".join(lines) + "\n")


SHOP = """
import millpond as mp

orders = mp.Table(
    "orders", source="orders.csv", key="order_id", time="ordered_at", checks=[mp.in_range("amount", min=0)]
)
customer = mp.Entity("customer", key="customer_id")


@mp.table(orders, key="order_id", time="ordered_at", checks=[mp.not_null("category")])
def priced(orders):
    return orders.with_columns(dear=mp.col("amount") > 50)


habits = mp.Features(
    "habits",
    entity=customer,
    source=priced,
    orders_7d=mp.count(over="7d"),
    returned_30d=mp.sum("returned", over="30d"),
    last_amount=mp.latest("amount"),
)
returned = mp.Model(
    "returned",
    task=mp.Classification(label="returned"),
    examples=priced,
    inputs=[habits, "category", "amount"],
    estimator="linear",
    gates=[mp.beats_baseline("log_loss")],
)
"""
