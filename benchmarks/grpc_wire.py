"""The gRPC wire beside grpcio's servers: the same ModelInfer over the same linear model, under the same load.

Only the wire differs: reading the message, the model and writing the answer are the same code behind each. Every server
has the same core, h2load another; windows alternate, so that whatever else the machine does meets all alike.
`python -m benchmarks.grpc_wire` prints a table.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processes
from benchmarks.grpc_load import TOKEN, WIDTH, Load, checked, press
from benchmarks.processes import CLIENT_CORE, SERVER_CORE
from millpond.serving.ports import Answer, InferRequest, ModelState, Question, RequestColumn, ServedModel

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ("millpond", "grpcio aio", "grpcio sync")
LARGE = "1000 rows, 2 connections"
LOADS = {
    "1 row, 1 at a time": Load(1, 1, 1),
    "1 row, 64 connections": Load(64, 1, 1),
    "1 row, 64 on a connection": Load(1, 64, 1),
    LARGE: Load(2, 1, 1000),
}
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

    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    if kind == "millpond":
        return serve_ours(sock, port)
    sock.close()
    run = InferenceService(Linear()).methods()[b"/inference.GRPCInferenceService/ModelInfer"].run

    def infer(message: bytes, context: Any) -> bytes:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
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
        known = {TOKEN: "bench"}
        await serve_grpc(Linear(), lambda token, done: done(known[token]), sock)
        print(port, flush=True)
        await asyncio.Event().wait()

    uvloop.run(forever())


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def window(port: int, pid: int, load: Load, length: int, seconds: int) -> dict[str, float]:
    """One measurement."""
    before = cpu_seconds(pid)
    found = press(port, load, length, seconds, CLIENT_CORE)
    spent = cpu_seconds(pid) - before
    figures = {"rps": found.rate, "p50_us": found.p50, "p99_us": found.p99, "client": found.client}
    return {**figures, "cpu_us": spent / found.calls * 1e6}


@contextmanager
def served(kind: str) -> Iterator[tuple[int, int, dict[int, int]]]:
    """A server on its core: its port, its process, and how long its answers are by their rows."""
    command = processes.kept([sys.executable, "-m", "benchmarks.grpc_wire", "serve", kind], SERVER_CORE)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as keeper:
        try:
            assert keeper.stdout is not None
            line = keeper.stdout.readline()
            if not line:
                raise SystemExit(f"the server {kind} ended with {keeper.wait()}")
            lengths = {
                rows: checked(int(line), rows, Linear().weights) for rows in {each.rows for each in LOADS.values()}
            }
            yield int(line), processes.descendants(keeper.pid)[0], lengths
        finally:
            keeper.terminate()
            keeper.wait()


def measure(rounds: int = 3, seconds: int = 1) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by load and server."""
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(served(kind)) for kind in SERVERS}
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, load in LOADS.items():
            seen: dict[str, list[dict[str, float]]] = {kind: [] for kind in SERVERS}
            for _ in range(rounds):
                for kind, (port, pid, lengths) in servers.items():
                    seen[kind].append(window(port, pid, load, lengths[load.rows], seconds))
            found[name] = {
                kind: {key: statistics.median(each[key] for each in windows) for key in windows[0]}
                for kind, windows in seen.items()
            }
        return found


def run() -> list[dict[str, Any]]:
    """For the page of all benchmarks: calls a second, and their cost, beside the better of grpcio's servers in each."""
    return [row for name, found in measure().items() for row in _rows(name, found)]


def _rows(name: str, found: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    ours, goal = found["millpond"], None if name == LARGE else 2
    for what, key, best in (("calls a second", "rps", max), ("processor time a call", "cpu_us", min)):
        kind = best(SERVERS[1:], key=lambda each: found[each][key])
        value = ours[key] / found[kind][key] if key == "rps" else found[kind][key] / ours[key]
        note = f"{ours[key]:,.0f}, {kind} {found[kind][key]:,.0f}" + (" µs of the server" if key == "cpu_us" else "")
        if key == "rps":
            note += f"; p50 {ours['p50_us']:,.0f} and {found[kind]['p50_us']:,.0f} µs"
            note += f", p99 {ours['p99_us']:,.0f} and {found[kind]['p99_us']:,.0f} µs"
            note += "; h2load was busy all the time" if ours["client"] > 0.95 else ""
        row = {"name": f"gRPC, {name}: {what}", "value": value, "goal": goal, "at_most": False}
        yield {**row, "unit": "x grpcio" if key == "rps" else "x less than grpcio", "note": note}


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        for name, found in measure().items():
            print(name)
            for kind, each in found.items():
                print(
                    f"  {kind:12} {each['rps']:9.0f}/s  server CPU {each['cpu_us']:7.1f} us/call"
                    f"  p50 {each['p50_us']:8.0f} us  p99 {each['p99_us']:8.0f} us  client {each['client']:.0%}"
                )
