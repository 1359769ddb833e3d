"""A newcomer's mistakes: each is told in their own terms, and nothing is lost or half written.

What only the words and the exit code depend on runs the command line in this process; what depends on processes (two
at once, the server) runs the real command.
"""

import json
import re
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from millpond.cli.main import app
from millpond.platform.platform import open_project

pytestmark = pytest.mark.slow

HEADER = "order_id,customer_id,ordered_at,category,amount,returned\n"
GOOD = "x1,c1,2024-01-01T00:00:00Z,books,1.5,0\n"
BOUGHT = re.compile(
    r"duckdb|iceberg|sqlalchemy|mlflow|narwhals|pydantic|sqlite3|pyarrow|binder|varchar|traceback|CREATE OR|SELECT ",
    re.IGNORECASE,
)


class Newcomer:
    """Types commands in a project, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.definitions = (folder / "definitions.py").read_text()

    def type(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["--project", str(self.folder), *arguments])

    def refused(self, code: int, *arguments: str) -> dict[str, str]:
        """The error of a command that must end with `code`, say what and what to do, and change nothing."""
        before = self.state()
        done = self.type(*arguments, "--json")
        assert done.exit_code == code, f"{arguments}: {done.exit_code}\n{done.output}\n{done.exception!r}"
        error: dict[str, str] = json.loads(done.stdout[done.stdout.index("{") :])
        assert error["what"].splitlines()[0] in done.stderr
        assert error["hint"] or error["where"], error
        assert not BOUGHT.search(error["what"] + error["hint"] + error["where"].replace(str(self.folder), "")), error
        assert self.state() == before, arguments
        return error

    def with_definitions(self, old: str, new: str) -> None:
        assert old in self.definitions
        (self.folder / "definitions.py").write_text(self.definitions.replace(old, new))

    def mend(self) -> None:
        (self.folder / "definitions.py").write_text(self.definitions)
        (self.folder / "millpond.toml").write_text('[project]\nname = "shop"\n')

    def state(self) -> dict[str, Any]:
        """All snapshots, but of check results, and all versions with their aliases."""
        platform = open_project(self.folder)
        tables = [name for name in platform.lake.tables() if name != "millpond.check_results"]
        kept: dict[str, Any] = {name: [each.id for each in platform.lake.history(name)] for name in tables}
        for model in platform.store.models():
            kept[f"model {model}"] = [(each.number, sorted(each.aliases)) for each in platform.store.versions(model)]
        return kept


def told(error: dict[str, str], *words: str) -> None:
    text = " ".join(error[part] for part in ("what", "where", "hint"))
    for word in words:
        assert word in text, error


@pytest.fixture(scope="module")
def newcomer(trained_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    folder = tmp_path_factory.mktemp("newcomer") / "shop"
    shutil.copytree(trained_shop.folder, folder)
    return Newcomer(folder)


FILES = {
    "wrong type": (GOOD + "x2,c1,2024-01-01T00:00:00Z,books,abc,0\n", ["amount", '"abc"', "line 3", "types="]),
    "ragged line": (GOOD + "x2,c1,2024\n", ["3 values", "6 columns", "line 3", "double quotes"]),
    "naive timestamp": ("x1,c1,2024-01-01 00:00:00,books,1.5,0\n", ["without a time zone", "line 2", "zone="]),
    "no timestamp": (GOOD + "x2,c1,soon,books,1.5,0\n", ['"soon"', "line 3", "ordered_at"]),
    "duplicate key": (GOOD + GOOD, ["order_id=x1", "2 times"]),
    "null key": (GOOD + ",c1,2024-01-01T00:00:00Z,books,1.5,0\n", ['"order_id" is null', "1 of 2 rows"]),
    "no rows": ("", ["no rows"]),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_file_that_cannot_be_taken(newcomer, mistake):
    rows, words = FILES[mistake]
    file = newcomer.folder / "more.csv"
    file.write_text(HEADER + rows)
    told(newcomer.refused(6, "ingest", "orders", str(file), "--mode", "append"), "more.csv", *words)


def test_files_that_are_not_there_or_empty(newcomer):
    told(newcomer.refused(4, "ingest", "orders", str(newcomer.folder / "order.csv")), "order.csv", "orders.csv")
    empty = newcomer.folder / "empty.csv"
    empty.write_text("")
    told(newcomer.refused(6, "ingest", "orders", str(empty)), "empty.csv is empty")
    empty.write_text(HEADER.replace("ordered_at", "orderd_at") + GOOD)
    told(newcomer.refused(6, "ingest", "orders", str(empty)), '"ordered_at"', "did you mean 'orderd_at'")


DEFINITIONS = {
    "view": ("train", 3, 'sum("returned"', 'sum("retuned"', ["definitions.py:15", "returned_30d", "mean 'returned'"]),
    "check": ("check", 3, 'in_range("amount"', 'in_range("amuont"', ["definitions.py:5", "did you mean 'amount'"]),
    "check type": ("train", 6, 'in_range("amount"', 'in_range("category"', ['column "category" is string']),
    "input": ("train", 3, '"category", "amount"]', '"categry"]', ["definitions.py:23", "did you mean 'category'"]),
    "label": ("train", 3, 'label="returned"', 'label="retrned"', ["'retrned'", "did you mean 'returned'"]),
    "leak": ("train", 3, '"category", "amount"]', '"returned"]', ["'returned'", "a label is not an input"]),
    "function": ("train", 6, 'col("amount") > 50', 'col("amont") > 50', ['"amont"', "definitions.py:12", "'amount'"]),
    "where": (
        "train",
        3,
        "examples=priced",
        'examples=priced, where=mp.col("returnd") == 0',
        ['"returnd"', "mean 'ret"],
    ),
    "one class": (
        "train",
        1,
        "examples=priced",
        'examples=priced, where=mp.col("returned") == 0',
        ["Every label", ":23"],
    ),
    "syntax": ("train", 3, "returned = mp.Model(", "returned = mp.Model((", ["definitions.py:23", "never closed"]),
    "argument": ("train", 3, 'estimator="linear"', 'estimatr="linear"', ["definitions.py:23", "'estimatr'"]),
    "duration": ("train", 3, 'over="7d"', 'over="7x"', ["definitions.py:15", "'7x'", '"7d"']),
    "estimator": ("train", 1, '"linear"', '"sklearn.ensemble.RandomForrest"', ["'RandomForrest'", "did you mean"]),
    "module": ("train", 1, '"linear"', '"sklern.ensemble.RandomForest"', ["'sklern'", "install 'sklern'"]),
    "source": ("ingest", 4, "orders.csv", "order.csv", ["order.csv", "did you mean"]),
}


@pytest.mark.parametrize("mistake", DEFINITIONS)
def test_a_definition_that_is_wrong(newcomer, mistake):
    command, code, old, new, words = DEFINITIONS[mistake]
    newcomer.with_definitions(old, new)
    try:
        told(newcomer.refused(code, command), *words)
    finally:
        newcomer.mend()
    assert newcomer.type("check").exit_code == 0


def test_settings_that_are_wrong(newcomer):
    for text, words in (
        ('[project]\nname = "shop"\ndefinition = "d.py"\n', ["project.definition", "did you mean 'definitions'"]),
        ('[project\nname = "shop"\n', ["line 1"]),
        ('[project]\nname = "shop"\n[profiles.local]\nport = "x"\n', ["profiles.local.port is 'x'", "integer"]),
    ):
        (newcomer.folder / "millpond.toml").write_text(text)
        error = json.loads(newcomer.type("status", "--json").stdout)
        newcomer.mend()
        told(error, "millpond.toml", *words)
        assert not BOUGHT.search(error["what"] + error["hint"])


def test_names_that_do_not_exist(newcomer):
    for arguments, words in (
        (["ingest", "ordrs"], ["'ordrs'", "did you mean 'orders'"]),
        (["table", "show", "ordrs"], ["did you mean 'orders'"]),
        (["table", "show", "orders", "--at", "12345"], ["no snapshot 12345"]),
        (["train", "retuned"], ["did you mean 'returned'"]),
        (["deploy", "returned", "7"], ["no version 7", "versions: 1"]),
        (["model", "show", "retuned"], ["did you mean 'returned'"]),
        (["predict", "retuned", "x=1"], ["did you mean 'returned'"]),
        (["predict", "returned", "--batch", "ordrs"], ["did you mean 'orders'"]),
        (["trace", "p_nothing"], ["'p_nothing'"]),
    ):
        told(newcomer.refused(4, *arguments), *words)
    told(newcomer.refused(6, "predict", "returned", "--batch", "orders", "--to", "orders"), "--to")
    told(newcomer.refused(6, "ingest", "priced"), "derived", "orders")
    for arguments in (["inges"], ["ingest", "--mode", "upsrt"], ["up", "--port", "99999"]):
        assert newcomer.type(*arguments).exit_code == 2


def test_rows_that_cannot_be_predicted(newcomer):
    good = ["customer_id=c1", "category=books", "amount=1.5"]
    for values, words in (
        (good[1:], ["'customer_id' is missing", "customer_id (string)"]),
        ([*good[:2], "amount=abc"], ["'abc'", "row 0, amount", "float64"]),
        ([*good[:2], "amuont=1"], ["'amuont'", "did you mean 'amount'"]),
        (["customer_id=nobody", *good[1:]], ["Unknown customer: 'nobody'", 'unknown="allow"']),
        ([*good, "--as-of", "yesterday"], ["'yesterday'", "--as-of"]),
        ([*good, "--as-of", "2024-01-01T00:00"], ["time zone"]),
        (["category"], ["'category'", "COLUMN=VALUE"]),
        ([], ["no columns", "customer_id=..."]),
    ):
        told(newcomer.refused(6, "predict", "returned", *values), *words)
    made = json.loads(newcomer.type("predict", "returned", *good, "--json").stdout)
    assert newcomer.type("trace", made["id"]).exit_code == 0


def test_a_zone_makes_naive_timestamps_instants(walked):
    newcomer = Newcomer(walked.folder)
    naive = newcomer.folder / "naive.csv"
    naive.write_text(HEADER + "x1,c1,2024-07-01 00:00:00,books,1.5,0\n")
    newcomer.refused(6, "ingest", "orders", str(naive), "--mode", "append")
    newcomer.with_definitions("checks=[mp.in_range", 'zone="Europe/Berlin", checks=[mp.in_range')
    assert newcomer.type("ingest", "orders", str(naive), "--mode", "append").exit_code == 0
    platform = open_project(newcomer.folder)
    with platform.engine() as engine:
        relation = engine.scan(platform.lake.snapshot("orders"))
        [[at]] = engine.rows(f"SELECT ordered_at FROM {relation} WHERE order_id = 'x1'")
    assert at.isoformat() == "2024-06-30T22:00:00+00:00"
    assert platform.lake.snapshot("orders").rows == 1501


def test_unknown_entities_where_they_are_allowed(walked):
    newcomer = Newcomer(walked.folder)
    newcomer.with_definitions('key="customer_id"', 'key="customer_id", unknown="allow"')
    assert newcomer.type("train", "--force").exit_code == 0
    done = newcomer.type("predict", "returned", "customer_id=nobody", "category=books", "amount=1.5", "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["inputs"]["habits__orders_7d"] == 0
    assert made["inputs"]["habits__last_amount"] is None


def test_a_blocking_check_stops_the_walk_and_a_warning_does_not(shop):
    newcomer = Newcomer(shop.folder)
    newcomer.with_definitions("min=0", "min=5")
    assert newcomer.type("ingest").exit_code == 0
    told(newcomer.refused(5, "train"), "in_range(amount", "80 of 1,500 rows", "order_id=o0", 'severity="warn"')
    assert set(open_project(newcomer.folder).lake.tables()) == {"orders", "millpond.check_results"}
    newcomer.mend()
    newcomer.with_definitions('not_null("category")', 'in_range("amount", min=5)')
    assert newcomer.type("train").exit_code == 5
    assert set(open_project(newcomer.folder).lake.tables()) == {"orders", "millpond.check_results", "priced"}
    newcomer.with_definitions("min=0)", 'min=5, severity="warn")')
    assert newcomer.type("train").exit_code == 0
    assert newcomer.state()["model returned"] == [(1, ["challenger", "champion"])]


def test_damaged_state_is_told(walked):
    newcomer = Newcomer(walked.folder)
    state = newcomer.folder / ".millpond"
    for name in ("lake/catalog.db", "mlflow.db", "platform.db"):
        with closing(sqlite3.connect(state / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [data] = [path for path in state.rglob("*.parquet") if "/main/orders/" in str(path)]
    newest = max(
        (path for path in state.rglob("*.metadata.json") if "/main/orders/" in str(path)), key=lambda p: p.name
    )
    [manifests] = [path for path in state.rglob("snap-*.avro") if "/main/orders/" in str(path)]
    [pickled] = state.rglob("model.pkl")
    [plan] = state.rglob("plan.json")
    show, predict = ["table", "show", "orders"], ["predict", "returned", "customer_id=c1"]
    assert newcomer.type(*predict).exit_code == 0
    for file, command, codes in (
        (state / "lake" / "catalog.db", show, {8}),
        (state / "mlflow.db", ["model", "list"], {8}),
        (state / "platform.db", ["token", "list"], {3}),
        (data, show, {4, 6}),
        (newest, show, {8}),
        (manifests, show, {8}),
        (plan, predict, {0}),  # the estimator answers instead
        (pickled, predict, {8}),  # asked without its plan
    ):
        if file is pickled:
            plan.parent.rename(plan.parent.with_name("aside"))
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], None):
            if damaged is None and file.suffix == ".db":
                continue  # without the file it is a new one
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            done = newcomer.type(*command, "--json")
            file.write_bytes(content)
            assert done.exit_code in codes, f"{file}\n{done.output}\n{done.exception!r}"
            if done.exit_code == 0:
                assert "plan" in done.stderr, done.output
                continue
            error = json.loads(done.stdout)
            assert error["where"].startswith(str(state)), error
            assert error["hint"], error
            assert "Something went wrong" not in error["what"]
        assert newcomer.type(*command).exit_code == 0


# What depends on processes


def test_two_at_once(shop):
    """Two of the same command: both end well, the work is done once."""
    for command in ("ingest", "train"):
        both = [
            subprocess.Popen(shop.command(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        ended = [process.communicate(timeout=240) for process in both]
        assert [process.returncode for process in both] == [0, 0], ended
    state = Newcomer(shop.folder).state()
    assert {name: len(kept) for name, kept in state.items()} == {
        "orders": 1,
        "priced": 1,
        "training.returned": 1,
        "model returned": 1,
    }
    assert state["model returned"] == [(1, ["challenger", "champion"])]


def request(**columns: tuple[str, Any]) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
        for name, (datatype, value) in columns.items()
    ]
    return {"inputs": inputs}


CUSTOMER, CATEGORY, AMOUNT = ("BYTES", "c1"), ("BYTES", "books"), ("FP64", 1.5)
INFER = "/v2/models/returned/infer"


def test_mistakes_over_http(walked):
    good = request(customer_id=CUSTOMER, category=CATEGORY, amount=AMOUNT)
    with walked.up() as client:
        assert client.post(INFER, json=good).status_code == 200
        for body, words in (
            (b"not json", ["not JSON", "line 1"]),
            (b"[]", ["array", "inputs"]),
            (request(category=CATEGORY, amount=AMOUNT), ["customer_id"]),
            (request(customer_id=CUSTOMER, amount=("FP99", 1.5)), ["FP99", "FP64"]),
            (request(customer_id=CUSTOMER, amount=("BYTES", "x")), ["amount", "float64"]),
            (request(customer_id=CUSTOMER, amuont=AMOUNT), ["amuont", "did you mean 'amount'"]),
            (request(customer_id=("BYTES", "nobody")), ["Unknown customer"]),
            ({"inputs": [{"name": "customer_id", "shape": [2], "datatype": "BYTES", "data": ["c1"]}]}, ["shape"]),
            ({**good, "parameters": {"as_of": "yesterday"}}, ["as_of", "yesterday"]),
        ):
            kept = {"content": body} if isinstance(body, bytes) else {"json": body}
            answer = client.post(INFER, **kept)
            assert answer.status_code == 400, answer.text
            for word in words:
                assert word in answer.json()["error"], answer.text
            assert not BOUGHT.search(answer.json()["error"])
        for path in ("/v2/models/retuned/infer", "/v2/models/returned/versions/9/infer"):
            assert client.post(path, json=good).status_code == 404
        stranger = httpx.Client(base_url=client.base_url)
        refusals = [stranger.post(INFER, json=good)]
        refusals.append(stranger.post(INFER, json=good, headers={"authorization": "Bearer mp_wrong"}))
        for answer in refusals:
            assert answer.status_code == 401
            assert answer.json()["hint"], answer.text
        check_large_body(walked, client)
        check_second_up(walked, client, good)
    assert walked.run("status").returncode == 0


def check_large_body(walked: Any, client: httpx.Client) -> None:
    """100 MB are refused, with and without a length said before; the server's memory does not grow by them."""
    piece = b" " * (1 << 20)
    # MLflow is loaded after the worker; what that takes is not the body's.
    walked.wait_for(lambda: client.get("/healthz").json()["mlflow"] == "ready")
    before = memory(walked.folder)
    for content in (piece * 100, (piece for _ in range(100))):
        try:
            status = client.post(INFER, content=content).status_code
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
            pytest.fail(f"no answer: {error!r}")
        assert status == 413
        assert client.get("/v2/health/ready").status_code == 200
    assert memory(walked.folder) - before < 64 << 20


def check_second_up(walked: Any, client: httpx.Client, good: dict[str, Any]) -> None:
    error = walked.refused("up", code=8)
    told(error, "runs already", str(client.base_url).rstrip("/"), "Ctrl-C")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = walked.folder.parent / "other"
        shutil.copytree(walked.folder, other, ignore=shutil.ignore_patterns("run"))
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*walked.command("up", "--port", port, "--json")[:2], str(other), "up", "--port", port, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 8
    told(json.loads(done.stdout), f"Port {port}", "--port")
    assert client.post(INFER, json=good).status_code == 200


def memory(folder: Path) -> int:
    """Resident bytes of the server's processes."""
    control = json.loads((folder / ".millpond" / "run" / "up.lock").read_text())["pid"]
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if control in (int(process.name), parent):
                total += int((process / "statm").read_text().split()[1]) * 4096
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
