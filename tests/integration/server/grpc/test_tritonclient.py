"""Real gRPC clients ask a real server: tritonclient on grpcio."""

from __future__ import annotations

import asyncio
import queue
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

HEADERS = {"authorization": "Bearer mp_known"}
METADATA = (("authorization", "Bearer mp_known"),)
RNG = np.random.default_rng(7)


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.url) as made:
        yield made


def matrix_input(rows: int, module=triton):
    values = RNG.normal(size=(rows, 30))
    tensor = module.InferInput("rows", [rows, 30], "FP64")
    tensor.set_data_from_numpy(values)
    return values, tensor


def test_one_row(client, server, expected):
    values, tensor = matrix_input(1)
    result = client.infer("linear", [tensor], request_id="mine", headers=HEADERS)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "3", "mine")
    assert response.parameters["variant"].string_param == "live"
    assert [each.name for each in response.outputs] == ["prediction_id", "probability", "answer", "as_of"]
    assert np.array_equal(result.as_numpy("probability"), expected(values))
    assert result.as_numpy("answer").tolist() == [bool(expected(values)[0] >= 0.5)]
    assert result.as_numpy("prediction_id").tolist() == [b"p_0"]
    assert result.as_numpy("as_of").tolist() == [b"2013-12-01T00:00:00Z"]
    assert server.models.users[-1] == "ann"


@pytest.mark.parametrize("rows", [2, 1000, 10_000])
def test_large_tensors_pass_both_ways(client, expected, rows):
    values, tensor = matrix_input(rows)
    result = client.infer("linear", [tensor], headers=HEADERS)
    assert np.array_equal(result.as_numpy("probability"), expected(values))
    assert result.as_numpy("prediction_id").tolist() == [f"p_{row}".encode() for row in range(rows)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, expected, algorithm):
    values, tensor = matrix_input(500)
    result = client.infer("linear", [tensor], headers=HEADERS, compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("probability"), expected(values))


def test_columns_of_all_types_and_some_outputs(client, expected):
    given = {
        "x": ("FP32", np.array([0.5, 2.0], np.float32)),
        "n": ("INT64", np.array([3, 4])),
        "b": ("BOOL", np.array([True, False])),
        "s": ("BYTES", np.array(["äb", "xyz"], np.object_)),
    }
    tensors = []
    for name, (datatype, values) in given.items():
        tensors.append(triton.InferInput(name, list(values.shape), datatype))
        tensors[-1].set_data_from_numpy(values)
    wanted = [triton.InferRequestedOutput("prediction")]
    result = client.infer("mixed", tensors, "3", outputs=wanted, headers=HEADERS)
    assert len(result.get_response().outputs) == 1
    want = expected(np.array([[0.5, 3, 1, 2, 0], [2, 4, 0, 3, 0]]))
    assert np.array_equal(result.as_numpy("prediction"), want)


def test_typed_contents(server, expected):
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": [2], "contents": {"fp64_contents": [1.5, -2.5]}},
        {"name": "n", "datatype": "INT32", "shape": [2], "contents": {"int_contents": [3, -4]}},
        {"name": "b", "datatype": "BOOL", "shape": [2, 1], "contents": {"bool_contents": [True, False]}},
        {"name": "s", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": [b"abc", "ö".encode()]}},
        {"name": "t", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": [b"1970-01-01T00:00:00Z"] * 2}},
    ]
    with grpc.insecure_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = service_pb2.ModelInferRequest(model_name="mixed", inputs=inputs)
        response = stub.ModelInfer(asked, metadata=METADATA)
        found = np.frombuffer(response.raw_output_contents[1])
        assert np.array_equal(found, expected(np.array([[1.5, 3, 1, 3, 0], [-2.5, -4, 0, 1, 0]])))
        assert not response.outputs[1].HasField("contents")
        for mend, text in [
            (lambda each: each.raw_input_contents.append(b""), "5 inputs and 1 raw_input_contents"),
            (lambda each: each.raw_input_contents.extend([b""] * 5), "mixed"),
            (lambda each: setattr(each.inputs[0], "datatype", "FP32"), "in fp64_contents"),
            (lambda each: setattr(each.inputs[0], "datatype", "FP16"), "raw"),
            (lambda each: setattr(each.inputs[0], "datatype", "FP8"), "FP8"),
            (lambda each: each.inputs[1].contents.int_contents.append(1), "3 values"),
            (lambda each: setattr(each.inputs[1], "name", "m"), "'m'"),
            (lambda each: each.outputs.add(name="nothing"), "'nothing'"),
        ]:
            wrong = service_pb2.ModelInferRequest()
            wrong.CopyFrom(asked)
            mend(wrong)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(wrong, metadata=METADATA)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert text in caught.value.details()


def test_parameters_of_a_request(client):
    _, tensor = matrix_input(1)
    result = client.infer("linear", [tensor], headers=HEADERS, parameters={"as_of": "2013-12-01T08:00:00Z"})
    assert result.get_response().parameters["as_of"].string_param == "2013-12-01T08:00:00Z"
    with pytest.raises(InferenceServerException, match=r"did you mean 'as_of'"):
        client.infer("linear", [tensor], headers=HEADERS, parameters={"as_off": "2013-12-01T08:00:00Z"})
    with pytest.raises(InferenceServerException, match=r"expected a string"):
        client.infer("linear", [tensor], headers=HEADERS, parameters={"routing_key": 7})


def test_what_there_is(client, server):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear", headers=HEADERS)
    assert client.is_model_ready("linear", "3", headers=HEADERS)
    assert client.get_server_metadata(headers=HEADERS).name == "millpond"
    metadata = client.get_model_metadata("mixed", headers=HEADERS)
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("mixed", ["3"], "millpond")
    assert [(each.name, each.datatype) for each in metadata.inputs][:3] == [
        ("x", "FP64"),
        ("n", "INT64"),
        ("b", "BOOL"),
    ]
    assert [each.name for each in metadata.outputs] == ["prediction_id", "prediction", "as_of"]


def test_the_repository(client):
    def states():
        found = client.get_model_repository_index(headers=HEADERS).models
        return {each.name: each.state for each in found}

    _, tensor = matrix_input(1)
    client.unload_model("linear", headers=HEADERS)
    assert states() == {"full": "READY", "late": "READY", "linear": "UNLOADED", "mixed": "READY"}
    assert client.is_server_ready()
    with pytest.raises(InferenceServerException) as caught:
        client.infer("linear", [tensor], headers=HEADERS)
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    client.load_model("linear", headers=HEADERS)
    assert states()["linear"] == "READY"
    client.infer("linear", [tensor], headers=HEADERS)
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        client.load_model("none", headers=HEADERS)


def test_clients_built_for_kserve_name_the_model_first(server):
    with grpc.insecure_channel(server.url) as channel:
        for method in ("Unload", "Load"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/RepositoryModel{method}")
            assert call(b"\x0a\x05mixed", metadata=METADATA) == b"\x0a\x05mixed\x10\x01"
            assert ("mixed" in server.models.unloaded) == (method == "Unload")


def test_a_model_is_loaded_as_it_was_registered(client):
    with pytest.raises(InferenceServerException, match="as it was registered"):
        client.load_model("linear", config="{}", headers=HEADERS)


def test_what_is_asked_is_counted(start):
    server = start(deadline_seconds=0.1)
    _, one = matrix_input(1)
    _, many = matrix_input(7)
    with triton.InferenceServerClient(server.url) as client:
        client.infer("linear", [one], headers=HEADERS)
        client.infer("linear", [many], "3", headers=HEADERS)
        for model in ("none", "full", "mixed", "late"):
            with pytest.raises(InferenceServerException):
                client.infer(model, [one], headers=HEADERS)
        server.until(lambda: len(server.counts.seen) == 6)
        assert server.counts.seen == [
            ("linear", "3", "live", 200, 1),
            ("linear", "3", "live", 200, 7),
            ("", "", "", 404, 0),
            ("full", "3", "", 429, 0),
            ("mixed", "3", "", 400, 0),
            ("late", "3", "", 504, 0),
        ]
        assert server.counts.waiting == 0
        assert client.is_server_ready()
        server.ending = True
        assert not client.is_server_ready()


def test_health_by_grpcs_own_service(server):
    def encoded(service: str) -> bytes:
        return b"\x0a" + bytes((len(service),)) + service.encode() if service else b""

    with grpc.insecure_channel(server.url) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(encoded("")) == check(encoded("inference.GRPCInferenceService")) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            check(encoded("other"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("headers", [None, {"authorization": "Bearer mp_other"}, {"authorization": "Basic xyz"}])
def test_who_is_not_known_is_told_nothing(client, headers):
    _, tensor = matrix_input(1)
    for call in (
        lambda: client.infer("linear", [tensor], headers=headers),
        lambda: client.get_model_repository_index(headers=headers),
        lambda: client.unload_model("linear", headers=headers),
        lambda: client.get_server_metadata(headers=headers),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNAUTHENTICATED"


def test_errors_have_their_status(client, server):
    _, tensor = matrix_input(1)
    for model, version, status in [
        ("full", "", "RESOURCE_EXHAUSTED"),
        ("none", "", "NOT_FOUND"),
        ("linear", "9", "NOT_FOUND"),
        ("mixed", "", "INVALID_ARGUMENT"),
    ]:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, [tensor], version, headers=HEADERS)
        assert caught.value.status() == f"StatusCode.{status}"
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_config("linear", headers=HEADERS)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    _, many = matrix_input(10_001)
    with pytest.raises(InferenceServerException, match="10001 rows") as caught:
        client.infer("linear", [many], headers=HEADERS)
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_deadlines_and_cancellation_reach_the_model(client, server):
    models = server.models
    _, tensor = matrix_input(1)
    dropped = models.dropped
    with pytest.raises(InferenceServerException) as caught:
        client.infer("late", [tensor], headers=HEADERS, client_timeout=0.1)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert 0 < time.monotonic() + 0.1 - models.deadlines[-1] < 1
    server.until(lambda: models.dropped == dropped + 1)
    results: queue.Queue = queue.Queue()
    before = models.pending
    call = client.async_infer("late", [tensor], lambda result, error: results.put(error), headers=HEADERS)
    server.until(lambda: models.pending == before + 1)
    call.cancel()
    assert "cancelled" in str(results.get(timeout=5)).lower()
    server.until(lambda: models.dropped == dropped + 2)


def test_many_calls_at_once_on_one_channel(client, expected):
    results: queue.Queue = queue.Queue()
    asked = {}
    for index in range(256):
        values, tensor = matrix_input(1 + index % 5)
        asked[str(index)] = values
        client.async_infer(
            "late" if index % 2 else "linear",
            [tensor],
            lambda result, error: results.put((result, error)),
            request_id=str(index),
            headers=HEADERS,
        )
    for _ in range(256):
        result, error = results.get(timeout=10)
        assert error is None
        values = asked.pop(result.get_response().id)
        assert np.array_equal(result.as_numpy("probability"), expected(values))
    assert asked == {}


def test_asyncio_clients(server, expected):
    async def run() -> None:
        async with triton_aio.InferenceServerClient(server.url) as client:
            assert await client.is_server_live()
            inputs = [matrix_input(40, triton_aio) for _ in range(64)]
            answers = await asyncio.gather(*(client.infer("linear", [tensor], headers=HEADERS) for _, tensor in inputs))
            for (values, _), answer in zip(inputs, answers, strict=True):
                assert np.array_equal(answer.as_numpy("probability"), expected(values))

    asyncio.run(run())


def test_a_message_over_the_limit(start):
    server = start(message_bytes=100_000)
    with triton.InferenceServerClient(server.url) as client:
        for rows, fits in ((400, True), (500, False), (5000, False), (10, True)):
            _, tensor = matrix_input(rows)
            if fits:
                assert len(client.infer("linear", [tensor], headers=HEADERS).as_numpy("answer")) == rows
                continue
            with pytest.raises(InferenceServerException, match="longer than 100000 bytes") as caught:
                client.infer("linear", [tensor], headers=HEADERS)
            assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_a_drain_answers_what_was_asked_and_refuses_the_rest(start, expected):
    server = start()
    with triton.InferenceServerClient(server.url) as client:
        values, tensor = matrix_input(3)
        results: queue.Queue = queue.Queue()
        client.async_infer("late", [tensor], lambda result, error: results.put((result, error)), headers=HEADERS)
        server.until(lambda: server.models.pending == 1)
        drained = server.drain(5)
        result, error = results.get(timeout=5)
        assert error is None
        assert np.array_equal(result.as_numpy("probability"), expected(values))
        drained.result(5)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("linear", [tensor], headers=HEADERS, client_timeout=1)
        assert caught.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
