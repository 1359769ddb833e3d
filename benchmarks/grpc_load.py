"""Load for a gRPC server: h2load posts one prepared ModelInfer again and again, each answer at once followed by a call.

h2load is a program in C, which asks several times as fast as any of the servers answers. It looks at no answer but at
its status in HTTP/2; so a server is asked by `checked` first, and the answers of a window are as long as that one.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from millpond.server.grpc import messages

WIDTH = 30
PATH = "/inference.GRPCInferenceService/ModelInfer"
TOKEN = "mp_bench"


@dataclass(frozen=True)
class Load:
    """So many connections, so many calls at once on each, so many rows a call."""

    connections: int
    streams: int
    rows: int


@dataclass(frozen=True)
class Answered:
    """What h2load says of some seconds.

    Attributes:
        calls: Answered.
        rate: Calls a second.
        p50, p99: Latency, microseconds.
        client: Share of its core that h2load used; near 1, it could not ask any faster.
    """

    calls: int
    rate: float
    p50: float
    p99: float
    client: float


def request(rows: int) -> bytes:
    """A ModelInferRequest of so many rows, raw."""
    values = np.random.default_rng(1).normal(size=(rows, WIDTH))
    tensor = {"name": "rows", "datatype": "FP64", "shape": [rows, WIDTH]}
    message = messages.ModelInferRequest(model_name="linear", inputs=[tensor], raw_input_contents=[values.tobytes()])
    encoded: bytes = message.SerializeToString()
    return encoded


def checked(port: int, rows: int, weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int:
    """Compare the answer of a server with what a linear model says; its length.

    Raises:
        SystemExit: It is another one.
    """
    import grpc

    values = np.random.default_rng(1).normal(size=(rows, WIDTH))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        raw: bytes = channel.unary_unary(PATH)(
            request(rows), metadata=[("authorization", f"Bearer {TOKEN}")], timeout=30, wait_for_ready=True
        )
    answer = messages.ModelInferResponse()
    answer.ParseFromString(raw)
    index = [each.datatype for each in answer.outputs].index("FP64")
    found = np.frombuffer(answer.raw_output_contents[index])
    if not np.allclose(found, 1 / (1 + np.exp(-(values @ weights))), rtol=1e-12, atol=0):
        raise SystemExit(f"the server at port {port} says something else than the model")
    return len(raw)


def press(port: int, load: Load, length: int, seconds: int, core: int) -> Answered:
    """One window; `length` is that of a right answer.

    Raises:
        SystemExit: h2load cannot be run, or a call failed.
    """
    program = shutil.which("h2load")
    if program is None:
        raise SystemExit("The benchmark needs h2load on the PATH, and there is none: Debian's nghttp2-client has it")
    with tempfile.TemporaryDirectory() as name:
        body, log = Path(name, "body"), Path(name, "log")
        message = request(load.rows)
        body.write_bytes(b"\0" + len(message).to_bytes(4) + message)
        command = ["taskset", "-c", str(core), program, f"-c{load.connections}", f"-m{load.streams}", "-t1"]
        command += [f"--duration={seconds}", f"--data={body}", f"--log-file={log}", "-w30", "-W30"]
        headers = ("te: trailers", "content-type: application/grpc", f"authorization: Bearer {TOKEN}")
        command += [*(f"--header={each}" for each in headers), f"http://127.0.0.1:{port}{PATH}"]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
        data = re.search(r"\((\d+)\) data", done.stdout)
        whole = counts and data and int(data[1]) >= int(counts[1]) * length > 0
        if done.returncode or counts is None or not whole or int(counts[2]) or int(counts[3]):
            raise SystemExit(f"h2load: {os.linesep.join([done.stderr, done.stdout]).strip()[-500:]}")
        times = np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()])
    calls = int(counts[1])
    p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
    busy = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return Answered(calls, calls / seconds, p50, p99, busy / seconds)
