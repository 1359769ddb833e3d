"""Asks a server by the clients of the KServe SDK, in an environment that has it; see `test_inference_clients.py`.

    python kserve_client.py < told.json

Reads {"serving", "grpc", "token", "requests": [{"model", "version", "inputs": [{name, shape, datatype, data}]}]}, and
writes {"rest": ..., "grpc": ...}: what the server and each model say of themselves, the outputs of each request by
name, and what is told to a caller with a wrong token, and to one who asks for an unknown model.
"""

import asyncio
import json
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

KINDS = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


def request_of(told, binary):
    inputs = []
    for each in told["inputs"]:
        made = InferInput(each["name"], list(each["shape"]), each["datatype"])
        if binary:
            values = [value.encode() if isinstance(value, str) else value for value in each["data"]]
            made.set_data_from_numpy(np.array(values, KINDS[each["datatype"]]).reshape(each["shape"]))
        else:
            made.data = each["data"]
        inputs.append(made)
    return InferRequest(model_name=told["model"], infer_inputs=inputs, request_id="k1")


def plain(response):
    found = {}
    for each in response.outputs:
        values = each.as_numpy().tolist()
        found[each.name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    return {"model": response.model_name, "version": response.model_version, "id": response.id, "outputs": found}


async def rest(told):
    base, headers = told["serving"], {"authorization": f"Bearer {told['token']}"}
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    models = sorted({each["model"] for each in told["requests"]})
    answer = {
        "live": await client.is_server_live(base, headers=headers),
        "ready": await client.is_server_ready(base, headers=headers),
        "models": {each: await client.is_model_ready(base, each, headers=headers) for each in [*models, "nobody"]},
        "answers": [],
        "binary": [],
        "errors": [],
    }
    for kind, binary in (("answers", False), ("binary", True)):
        for each in told["requests"]:
            sent = request_of(each, binary)
            answer[kind].append(plain(await client.infer(base, sent, each["model"], headers=dict(headers))))
    for model, token in (("nobody", told["token"]), (models[0], "mp_wrong")):
        try:
            sent = request_of(told["requests"][0], binary=False)
            await client.infer(base, sent, model, headers={"authorization": f"Bearer {token}"})
        except httpx.HTTPStatusError as error:
            answer["errors"].append([error.response.status_code, str(error)])
    await client.close()
    return answer


async def over_grpc(told):
    headers = (("authorization", f"Bearer {told['token']}"),)
    models = sorted({each["model"] for each in told["requests"]})
    async with InferenceGRPCClient(told["grpc"], retries=0, channel_args=[]) as client:
        answer = {
            "live": await client.is_server_live(headers=headers),
            "ready": await client.is_server_ready(headers=headers),
            "models": {each: await client.is_model_ready(each, headers=headers) for each in models},
            "answers": [],
            "binary": [],
            "errors": [],
        }
        for kind, binary in (("answers", False), ("binary", True)):
            for each in told["requests"]:
                answer[kind].append(plain(await client.infer(request_of(each, binary), headers=headers)))
        for model, token in (("nobody", told["token"]), (models[0], "mp_wrong")):
            sent = request_of({**told["requests"][0], "model": model}, binary=False)
            try:
                await client.infer(sent, headers=(("authorization", f"Bearer {token}"),))
            except grpc.RpcError as error:
                answer["errors"].append([error.code().name, error.details()])
    return answer


async def main():
    told = json.load(sys.stdin)
    print(json.dumps({"rest": await rest(told), "grpc": await over_grpc(told)}))


if __name__ == "__main__":
    asyncio.run(main())
