"""The gRPC wire beside grpcio's servers: the same ModelInfer over the same linear model, under the same load.

Only the wire differs: reading the message, the model and writing the answer are the same code behind each. What
counts is the processor time that the server process spends on a call; windows alternate, so that whatever else the
machine does meets all alike. `python -m benchmarks.grpc_wire` prints a table.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from millpond.serving.ports import Answer, InferRequest, ModelState, Question, RequestColumn, ServedModel

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 30
SERVERS = ("millpond", "grpcio aio", "grpcio sync")
#: Connections, calls at once on each, rows a call.
LOADS = {"1 row, 1 at a time": (1, 1, 1), "1 row, 64 connections": (64, 1, 1), "1 row, 64 on a connection": (1, 64, 1)}
ROWS = {"1000 rows, 2 connections": (2, 1, 1000)}
TICK = os.sysconf("SC_CLK_TCK")


class Linear:
    """One linear model of 30 numbers, as an `Answering`."""

    def __init__(self) -> None:
        inputs = {f"f{index:02}": "float64" for index in range(WIDTH)}
        columns = tuple(RequestColumn(name, kind, False, "input") for name, kind in inputs.items())
        self.model = ServedModel("linear", 1, "classification", 0.5, columns, None, inputs)
        self.weights = np.linspace(-1, 1, WIDTH)

    def ask(self, question: Question) -> None:
        request: InferRequest = question.read(self.model)
        assert request.rows.matrix is not None
        scores = 1 / (1 + np.exp(-(request.rows.matrix @ self.weights)))
        count = request.rows.count
        ids = [f"p_{row:026}" for row in range(count)]
        outputs = {"output": scores}
        answers = (scores >= 0.5).tolist()
        question.done(request, Answer(self.model, "live", ids, outputs, answers, [1_385_856_000_000_000] * count))

    def served(self, _model: str, _version: str | None = None) -> ServedModel:
        return self.model

    def state(self, model: str, _version: str | None = None) -> ModelState:
        return ModelState(model, "1", "READY")

    def index(self) -> list[ModelState]:
        return [self.state("linear")]

    def load(self, model: str) -> None: ...

    def unload(self, model: str) -> None: ...


class Reply:
    """Stands where the wire's stream does, before another wire."""

    deadline = None
    gone = answered = False
    message = b""

    def is_gone(self) -> bool:
        return False

    def answer(self, _head: bytes, data: bytes, _trailers: bytes) -> None:
        self.message = data[5:]

    def end(self, trailers: bytes) -> None:
        raise ValueError(trailers)


def serve(kind: str) -> None:
    """Serve until ended; prints the port."""
    from millpond.server.grpc.service import InferenceService

    os.sched_setaffinity(0, {0})
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    if kind == "millpond":
        return serve_ours(sock, port)
    sock.close()
    run = InferenceService(Linear()).methods()[b"/inference.GRPCInferenceService/ModelInfer"].run

    def infer(message: bytes, context: Any) -> bytes:
        if dict(context.invocation_metadata()).get("authorization") != "Bearer mp_bench":
            raise ValueError("no identity")
        reply = Reply()
        run(reply, "bench", message)  # type: ignore[arg-type]
        return reply.message

    import grpc

    async def infer_aio(message: bytes, context: Any) -> bytes:
        return infer(message, context)

    async def serve_aio() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(infer_aio),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        print(port, flush=True)
        await server.wait_for_termination()

    def handlers(call: Any) -> Any:
        methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(call)}
        return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)

    if kind == "grpcio aio":
        import uvloop

        return uvloop.run(serve_aio())
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers(infer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()
    return None


def serve_ours(sock: socket.socket, port: int) -> None:
    import uvloop

    from millpond.server.grpc.server import serve_grpc

    async def forever() -> None:
        known = {"mp_bench": "bench"}
        await serve_grpc(Linear(), lambda token, done: done(known[token]), sock)
        print(port, flush=True)
        await asyncio.Event().wait()

    uvloop.run(forever())


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def window(port: int, pid: int, load: tuple[int, int, int], seconds: float) -> dict[str, float]:
    """One measurement."""
    command = [sys.executable, "-m", "benchmarks.grpc_load", str(port), *map(str, load), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        os.sched_setaffinity(client.pid, {os.cpu_count() - 1 if os.cpu_count() else 0})
        assert client.stdout is not None
        assert client.stdout.readline().strip() == "begin"
        before = cpu_seconds(pid)
        line = client.stdout.readline()
        spent = cpu_seconds(pid) - before
    found: dict[str, float] = json.loads(line)
    if found["failed"]:
        raise SystemExit(f"{found['failed']:.0f} calls failed")
    return {
        "rps": found["calls"] / found["seconds"],
        "cpu_us": spent / found["calls"] * 1e6,
        "p50_us": found["p50"] * 1e6,
        "p99_us": found["p99"] * 1e6,
    }


def measure(rounds: int = 3, seconds: float = 2.0) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by load and server."""
    servers = {
        kind: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.grpc_wire", "serve", kind], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for kind in SERVERS
    }
    try:
        ports = {kind: int(process.stdout.readline()) for kind, process in servers.items() if process.stdout}
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, load in {**LOADS, **ROWS}.items():
            seen: dict[str, list[dict[str, float]]] = {kind: [] for kind in SERVERS}
            for _ in range(rounds):
                for kind in SERVERS:
                    seen[kind].append(window(ports[kind], servers[kind].pid, load, seconds))
            found[name] = {
                kind: {key: statistics.median(each[key] for each in windows) for key in windows[0]}
                for kind, windows in seen.items()
            }
        return found
    finally:
        for process in servers.values():
            process.send_signal(signal.SIGTERM)
        for process in servers.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def run() -> list[dict[str, Any]]:
    """For the page of all benchmarks: how much less a call costs than with the better of grpcio's servers."""
    rows = []
    for name, found in measure().items():
        ours = found["millpond"]
        peer = min((found[kind] for kind in SERVERS[1:]), key=lambda each: each["cpu_us"])
        note = f"{ours['cpu_us']:.0f} and {peer['cpu_us']:.0f} us of the server's processor a call; {ours['rps']:.0f}/s"
        value, goal = peer["cpu_us"] / ours["cpu_us"], 2 if name in LOADS else None
        rows.append(
            {
                "name": f"gRPC, {name}: beside grpcio",
                "value": value,
                "goal": goal,
                "at_most": False,
                "unit": "x",
                "note": note,
            }
        )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        for name, found in measure().items():
            print(name)
            for kind, each in found.items():
                print(
                    f"  {kind:12} {each['rps']:9.0f}/s  server CPU {each['cpu_us']:7.1f} us/call"
                    f"  p50 {each['p50_us']:8.0f} us  p99 {each['p99_us']:8.0f} us"
                )
