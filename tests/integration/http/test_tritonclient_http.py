"""The protocol's own Python clients, blocking and not, against a worker's port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

HEADERS = {"Authorization": "Bearer ann"}


@pytest.fixture
def triton(server: Any) -> Iterator[Any]:
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def inputs(module: Any, count: int, *, binary: bool) -> list[Any]:
    found = []
    for name in ("a", "b"):
        tensor = module.InferInput(name, [count], "FP64")
        tensor.set_data_from_numpy(np.arange(count, dtype="float64"), binary_data=binary)
        found.append(tensor)
    return found


def outputs(module: Any, *, binary: bool) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary) for name in ("prediction", "prediction_id")]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("count", [1, 1000])
def test_infer(triton: Any, binary_in: bool, binary_out: bool, count: int) -> None:
    import tritonclient.http as module

    answer = triton.infer(
        "sum",
        inputs(module, count, binary=binary_in),
        outputs=outputs(module, binary=binary_out),
        request_id="r-1",
        headers=dict(HEADERS),
    )
    np.testing.assert_array_equal(answer.as_numpy("prediction"), np.arange(count) * 2.0)
    said = answer.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("sum", "3", "r-1")
    first = answer.as_numpy("prediction_id")[0]
    assert (first.decode() if isinstance(first, bytes) else first) == "p_ann_0"


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_compression(triton: Any, request_algorithm: str, response_algorithm: str, binary: bool) -> None:
    import tritonclient.http as module

    answer = triton.infer(
        "sum",
        inputs(module, 500, binary=binary),
        outputs=outputs(module, binary=binary),
        headers=dict(HEADERS),
        request_compression_algorithm=request_algorithm,
        response_compression_algorithm=response_algorithm,
    )
    np.testing.assert_array_equal(answer.as_numpy("prediction"), np.arange(500) * 2.0)


def test_metadata_and_health(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("sum", headers=HEADERS)
    assert triton.is_model_ready("sum", "3", headers=HEADERS)
    assert not triton.is_model_ready("nothing", headers=HEADERS)
    assert triton.get_server_metadata(headers=HEADERS)["name"] == "millpond"
    metadata = triton.get_model_metadata("sum", headers=HEADERS)
    assert [each["name"] for each in metadata["inputs"]] == ["a", "b"]


def test_the_repository(triton: Any) -> None:
    import tritonclient.http as module
    from tritonclient.utils import InferenceServerException

    names = {each["name"]: each["state"] for each in triton.get_model_repository_index(headers=HEADERS)}
    assert names["sum"] == "READY"
    triton.unload_model("sum", headers=HEADERS)
    try:
        assert not triton.is_model_ready("sum", headers=HEADERS)
        with pytest.raises(InferenceServerException, match="no model 'sum'"):
            triton.infer("sum", inputs(module, 1, binary=True), headers=dict(HEADERS))
        with pytest.raises(InferenceServerException, match="as it was registered"):
            triton.load_model("sum", config="{}", headers=HEADERS)
    finally:
        triton.load_model("sum", headers=HEADERS)
    assert triton.is_model_ready("sum", headers=HEADERS)


def test_a_deadline_of_the_client(triton: Any) -> None:
    import tritonclient.http as module
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"within 0.2 seconds"):
        triton.infer("never", inputs(module, 1, binary=True), timeout=200_000, headers=dict(HEADERS))


def test_without_a_token(triton: Any) -> None:
    import tritonclient.http as module
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="needs an identity"):
        triton.infer("sum", inputs(module, 1, binary=False))


def test_the_client_that_does_not_block(server: Any) -> None:
    import tritonclient.http.aio as module

    async def ask() -> list[float]:
        async with module.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()

            async def one(count: int) -> float:
                answer = await client.infer(
                    "sum",
                    inputs(module, count, binary=count % 2 == 0),
                    headers=dict(HEADERS),
                    request_compression_algorithm="gzip" if count % 3 == 0 else None,
                )
                return float(answer.as_numpy("prediction")[-1])

            return await asyncio.gather(*(one(count) for count in range(1, 40)))

    assert asyncio.run(ask()) == [2.0 * (count - 1) for count in range(1, 40)]
