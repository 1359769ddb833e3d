"""Clients that nobody here wrote ask a running server, for models of every kind: their numbers are the models' own.

`tritonclient` over HTTP and gRPC, and the inference clients of the KServe SDK.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from tritonclient.utils import InferenceServerException

from millpond.platform.platform import open_project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KSERVE = ROOT / ".venv-peers" / "kserve-client" / "bin" / "python"
WIDE = np.random.default_rng(11).normal(size=(4, 30))
WORDS = ["pond", "né", "a longer one", ""]
MODELS = ("knn", "lgb", "own", "returned")


@pytest.fixture(scope="module")
def project(inference_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    project = type(inference_shop)(tmp_path_factory.mktemp("clients") / "shop")
    shutil.copytree(inference_shop.folder, project.folder)
    return project


@pytest.fixture(scope="module")
def server(project: Any) -> Iterator[Any]:
    with project.serve() as server:
        yield server


@pytest.fixture(scope="module")
def inputs() -> dict[str, dict[str, np.ndarray]]:
    """What each model is asked: input -> values."""
    texts = np.array([each.encode() for each in WORDS], np.object_)
    return {
        "lgb": {"input": WIDE},
        "knn": {name: WIDE[:, [at]] for at, name in enumerate(("height", "width", "depth"))},
        "own": {"number": WIDE[:, 0], "word": texts},
        "returned": {
            "customer_id": np.array([b"c1", b"c5", b"c10", b"c7"], np.object_),
            "category": np.array([b"books", b"shoes", b"shirts", b"books"], np.object_),
            "amount": np.array([1.5, 70.0, 12.5, 3.0]),
        },
    }


@pytest.fixture(scope="module")
def expected(inference_models: Path, server: Any) -> dict[str, dict[str, list[Any]]]:
    """What each model says itself, loaded from its files; for the one with features, what the console's API says."""
    import lightgbm
    import mlflow
    import pandas as pd

    booster = lightgbm.Booster(model_file=str(next((inference_models / "lgb").glob("model.*"))))
    nearest = mlflow.sklearn.load_model(str(inference_models / "knn"))
    frame = pd.DataFrame(WIDE[:, :3], columns=["height", "width", "depth"])
    own = mlflow.pyfunc.load_model(str(inference_models / "own"))
    rows = [
        {"customer_id": customer, "category": category, "amount": amount}
        for customer, category, amount in (
            ("c1", "books", 1.5),
            ("c5", "shoes", 70.0),
            ("c10", "shirts", 12.5),
            ("c7", "books", 3.0),
        )
    ]
    answers = server.client.post("/api/v1/models/returned/predict", json={"rows": rows})
    assert answers.status_code == 200, answers.text
    return {
        "lgb": {"output": booster.predict(WIDE).tolist()},
        "knn": {"output": nearest.predict(frame).tolist()},
        "own": own.predict(pd.DataFrame({"number": WIDE[:, 0], "word": WORDS})).to_dict("list"),
        "returned": {
            name: [each[name] for each in answers.json()["predictions"]] for name in ("probability", "answer")
        },
    }


def triton_inputs(module: Any, values: dict[str, np.ndarray], **how: Any) -> list[Any]:
    found = []
    for name, each in values.items():
        datatype = {"f": "FP64", "O": "BYTES", "i": "INT64", "b": "BOOL"}[each.dtype.kind]
        found.append(module.InferInput(name, list(each.shape), datatype))
        found[-1].set_data_from_numpy(each, **how)
    return found


def plain(values: np.ndarray) -> list[Any]:
    return [each.decode() if isinstance(each, bytes) else each for each in values.tolist()]


def check(result: Any, expected: dict[str, list[Any]]) -> None:
    """Outputs are equal to the last bit, and each row has an id of its own."""
    for name, values in expected.items():
        assert plain(result.as_numpy(name)) == values, name
    assert len(set(plain(result.as_numpy("prediction_id")))) == 4


@pytest.fixture(params=["serving", "url"])
def triton_http(request: Any, server: Any) -> Iterator[Any]:
    """Of the workers' own port, and of the one port of everything."""
    address = getattr(server, request.param).removeprefix("http://")
    with tritonclient.http.InferenceServerClient(address) as client:
        yield client


class TestTritonOverHttp:
    @pytest.mark.parametrize("binary", [False, True])
    @pytest.mark.parametrize("model", MODELS)
    def test_infer(self, triton_http: Any, server: Any, inputs: Any, expected: Any, model: str, binary: bool) -> None:
        outputs = None
        if not binary:  # binary is what the client asks for where nothing is said
            names = [each["name"] for each in server.client.get(f"/v2/models/{model}").json()["outputs"]]
            outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=False) for name in names]
        given = triton_inputs(tritonclient.http, inputs[model], binary_data=binary)
        result = triton_http.infer(
            model, given, outputs=outputs, request_id="r7", headers=server.authorization, model_version="1"
        )
        check(result, expected[model])
        told = result.get_response()
        assert (told["model_name"], told["model_version"], told["id"]) == (model, "1", "r7")

    def test_chosen_outputs_and_compressed_bodies(
        self, triton_http: Any, server: Any, inputs: Any, expected: Any
    ) -> None:
        given = triton_inputs(tritonclient.http, inputs["own"])
        outputs = [tritonclient.http.InferRequestedOutput("shout"), tritonclient.http.InferRequestedOutput("length")]
        for algorithm in ("gzip", "deflate"):
            result = triton_http.infer(
                "own",
                given,
                outputs=outputs,
                headers=server.authorization,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert plain(result.as_numpy("shout")) == expected["own"]["shout"]
            assert plain(result.as_numpy("length")) == expected["own"]["length"]
            assert result.as_numpy("double") is None

    def test_health_and_metadata(self, triton_http: Any, server: Any) -> None:
        known = server.authorization
        assert triton_http.is_server_live(headers=known)
        assert triton_http.is_server_ready(headers=known)
        assert all(triton_http.is_model_ready(model, headers=known) for model in MODELS)
        assert not triton_http.is_model_ready("nobody", headers=known)
        told = triton_http.get_server_metadata(headers=known)
        assert told["name"] == "millpond"
        assert {"binary_tensor_data", "model_repository"} <= set(told["extensions"])
        own = triton_http.get_model_metadata("own", "1", headers=known)
        assert [(each["name"], each["datatype"]) for each in own["inputs"]] == [("number", "FP64"), ("word", "BYTES")]
        assert ("long", "BOOL") in [(each["name"], each["datatype"]) for each in own["outputs"]]
        assert triton_http.get_model_metadata("lgb", headers=known)["inputs"][0]["shape"] == [-1, 30]

    def test_repository(self, triton_http: Any, server: Any, inputs: Any, expected: Any) -> None:
        known = server.authorization
        index = triton_http.get_model_repository_index(headers=known)
        assert [(each["name"], each["version"], each["state"]) for each in index] == [
            (model, "1", "READY") for model in MODELS
        ]
        triton_http.unload_model("knn", headers=known)
        given = triton_inputs(tritonclient.http, inputs["knn"])
        with pytest.raises(InferenceServerException, match=r"'knn' was unloaded.*load it"):
            triton_http.infer("knn", given, headers=known)
        assert not triton_http.is_model_ready("knn", headers=known)
        assert triton_http.is_server_ready(headers=known)
        states = {each["name"]: each["state"] for each in triton_http.get_model_repository_index(headers=known)}
        assert states == {**dict.fromkeys(MODELS, "READY"), "knn": "UNLOADED"}
        triton_http.load_model("knn", headers=known)
        check(triton_http.infer("knn", given, headers=known), expected["knn"])

    def test_refusals(self, triton_http: Any, server: Any, inputs: Any) -> None:
        given = triton_inputs(tritonclient.http, inputs["lgb"])
        for headers in ({}, {"authorization": "Bearer mp_wrong"}):
            with pytest.raises(InferenceServerException) as refused:
                triton_http.infer("lgb", given, headers=headers)
            assert refused.value.status() == "401"
        basic = base64.b64encode(f"anybody:{server.token}".encode()).decode()
        assert triton_http.infer("lgb", given, headers={"authorization": f"Basic {basic}"}).as_numpy("output").size == 4
        for model, version, status in (("lbg", "", "404"), ("lgb", "17", "404"), ("lgb", "one", "404")):
            with pytest.raises(InferenceServerException, match=r"lgb") as refused:
                triton_http.infer(model, given, model_version=version, headers=server.authorization)
            assert refused.value.status() == status
        narrow = triton_inputs(tritonclient.http, {"input": WIDE[:, :29]})
        with pytest.raises(InferenceServerException, match=r"input.*30") as refused:
            triton_http.infer("lgb", narrow, headers=server.authorization)
        assert refused.value.status() == "400"


class TestTritonOverGrpc:
    @pytest.mark.parametrize("model", MODELS)
    def test_infer(self, server: Any, inputs: Any, expected: Any, model: str) -> None:
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            given = triton_inputs(tritonclient.grpc, inputs[model])
            result = client.infer(model, given, request_id="g7", headers=server.authorization)
            check(result, expected[model])
            told = result.get_response()
            assert (told.model_name, told.model_version, told.id) == (model, "1", "g7")

    def test_health_metadata_and_repository(self, server: Any, inputs: Any, expected: Any) -> None:
        known = server.authorization
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            assert client.is_server_live(headers=known)
            assert client.is_server_ready(headers=known)
            assert client.is_model_ready("own", headers=known)
            assert client.get_server_metadata(headers=known).name == "millpond"
            told = client.get_model_metadata("lgb", headers=known)
            assert list(told.inputs[0].shape) == [-1, 30]
            index = client.get_model_repository_index(headers=known)
            assert [(each.name, each.state) for each in index.models] == [(model, "READY") for model in MODELS]
            client.unload_model("own", headers=known)
            assert not client.is_model_ready("own", headers=known)
            given = triton_inputs(tritonclient.grpc, inputs["own"])
            with pytest.raises(InferenceServerException, match="unloaded"):
                client.infer("own", given, headers=known)
            client.load_model("own", headers=known)
            check(client.infer("own", given, headers=known), expected["own"])

    def test_refusals(self, server: Any, inputs: Any) -> None:
        given = triton_inputs(tritonclient.grpc, inputs["lgb"])
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            for model, headers, code in (
                ("lgb", {"authorization": "Bearer mp_wrong"}, "UNAUTHENTICATED"),
                ("lgb", {}, "UNAUTHENTICATED"),
                ("lbg", server.authorization, "NOT_FOUND"),
            ):
                with pytest.raises(InferenceServerException) as refused:
                    client.infer(model, given, headers=headers)
                assert refused.value.status() == f"StatusCode.{code}"
            narrow = triton_inputs(tritonclient.grpc, {"input": WIDE[:, :29]})
            with pytest.raises(InferenceServerException, match=r"input.*30"):
                client.infer("lgb", narrow, headers=server.authorization)

    def test_many_at_once(self, server: Any, inputs: Any, expected: Any) -> None:
        async def ask() -> None:
            async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
                assert await client.is_server_ready(headers=server.authorization)

                async def one(model: str) -> None:
                    given = triton_inputs(tritonclient.grpc, inputs[model])
                    check(await client.infer(model, given, headers=server.authorization), expected[model])

                await asyncio.gather(*(one(model) for model in MODELS * 20))

        asyncio.run(ask())


@pytest.fixture(scope="module")
def kserve(server: Any, inputs: Any) -> Any:
    """What the clients of the KServe SDK were told; see `kserve_client.py`."""
    assert KSERVE.exists(), "the KServe SDK is installed by `python tests/requirements.py`"
    requests = [
        {
            "model": model,
            "inputs": [
                {
                    "name": name,
                    "shape": values.shape,
                    "datatype": "FP64" if values.dtype.kind == "f" else "BYTES",
                    "data": plain(values.reshape(-1)),
                }
                for name, values in inputs[model].items()
            ],
        }
        for model in MODELS
    ]
    told = {"serving": server.serving, "grpc": server.grpc, "token": server.token, "requests": requests}
    script = Path(__file__).with_name("kserve_client.py")
    done = subprocess.run(
        [str(KSERVE), str(script)], input=json.dumps(told), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_kserve(kserve: Any, expected: Any, wire: str) -> None:
    told = kserve[wire]
    assert told["live"] is True
    assert told["ready"] is True
    assert told["models"] == dict.fromkeys(MODELS, True) | ({"nobody": False} if wire == "rest" else {})
    for kind in ("answers", "binary"):
        for model, answer in zip(MODELS, told[kind], strict=True):
            assert (answer["model"], answer["id"]) == (model, "k1")
            assert answer["version"] == ("1" if wire == "grpc" else None)  # which its REST client drops
            for name, values in expected[model].items():
                assert answer["outputs"][name] == values, (kind, model, name)
    unknown, stranger = told["errors"]
    assert unknown[0] == (404 if wire == "rest" else "NOT_FOUND")
    assert "nobody" in unknown[1]
    assert stranger[0] == (401 if wire == "rest" else "UNAUTHENTICATED")
    assert "token" in stranger[1]


def test_the_worker_has_answered_for_every_kind_and_stayed_small(project: Any, server: Any, inputs: Any) -> None:
    """What a library needs runs elsewhere: the files that are mapped into the worker show which it has loaded."""
    worker = server.children()["serving-0"]
    project.wait_for(open_project(project.folder).online.states)  # from now on, it looks features up itself
    for _ in range(2):
        for model in MODELS:
            given = inputs[model].items()
            asked = {name: plain(values if model == "lgb" else values.reshape(-1)) for name, values in given}
            answer = server.infer(model, asked)
            assert answer.status_code == 200, answer.text
        time.sleep(1)  # the tables are looked at meanwhile
    mapped = Path(f"/proc/{worker}/maps").read_text()
    assert "/numpy/" in mapped
    heavy = ("pyarrow", "pandas", "duckdb", "sklearn", "scipy", "lightgbm", "pyiceberg")
    assert [each for each in heavy if f"/{each}" in mapped] == []
