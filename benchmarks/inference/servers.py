"""How each peer is started on a model, and how it is asked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.inference import bodies
from benchmarks.inference.bodies import Body, Reader

PROGRAMS = Path(__file__).with_name("peers")
ALL = ("lightgbm", "mixed", "neighbours")
_TRITON_TYPES = {"float64": "TYPE_FP64", "bool": "TYPE_BOOL", "string": "TYPE_STRING"}


@dataclass(frozen=True)
class Launch:
    """A command that starts a server, variables for it, and the URL to post to.

    Attributes:
        roomy: Start on every core, and be kept to one only then: on one, its processes give each other up meanwhile.
    """

    command: Sequence[str]
    url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    roomy: bool = False


@dataclass(frozen=True)
class Server:
    """A peer.

    Attributes:
        name: What the results call it.
        environment: Its entry in `processes.PEERS`.
        launch: (interpreter, directory of the model, empty folder, case) -> how it is started.
        body: What it takes.
        read: Reads what it answers.
        models: Those that it is asked about.
    """

    name: str
    environment: str
    launch: Callable[[str, Path, Path, bodies.Case], Launch]
    body: Body
    read: Reader
    models: Sequence[str] = ALL


def free_ports(number: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def refuse_occupied(url: str) -> None:
    """Servers that share a port would answer for each other.

    Raises:
        SystemExit: Somebody listens there.
    """
    host, _, port = url.split("/")[2].partition(":")
    with socket.socket() as probe:
        if probe.connect_ex((host, int(port))) == 0:
            raise SystemExit(f"somebody listens on {host}:{port} already")


def _mlflow(python: str, model: Path, _: Path, __: bodies.Case) -> Launch:
    [port] = free_ports(1)
    command = [python, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Launch(command, f"http://127.0.0.1:{port}/invocations", _path(python))


def _ray(folder: Path) -> dict[str, str]:
    """Where Ray keeps its files, patience with few cores, and nothing sent or written elsewhere.

    Its hook for `uv run` would start its workers by the command that started the benchmark, in a copy of the project.
    """
    patience = {"RAY_raylet_start_wait_time_s": "120", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return {"BENCHMARK_FOLDER": str(folder), **own, **patience}


def _program(
    name: str, more: Callable[[Path], Mapping[str, str]] = lambda _: {}
) -> Callable[[str, Path, Path, bodies.Case], Launch]:
    def launch(python: str, model: Path, folder: Path, _: bodies.Case) -> Launch:
        [port] = free_ports(1)
        path = "v2/models/model/infer" if name == "kserve_model" else "predict"
        command = [python, "-m", f"benchmarks.inference.peers.{name}", str(model), str(port)]
        url = f"http://127.0.0.1:{port}/{path}"
        return Launch(command, url, {**_path(python), **more(folder)}, roomy=name == "ray_deployment")

    return launch


def _bentoml(python: str, model: Path, home: Path, _: bodies.Case) -> Launch:
    [port] = free_ports(1)
    service = "benchmarks.inference.peers.bentoml_service:Answers"
    command = [python, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    variables = {"BENCHMARK_MODEL": str(model), "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    return Launch(command, f"http://127.0.0.1:{port}/predict", {**_path(python), **variables})


def _mlserver(implementation: str, **settings: object) -> Callable[[str, Path, Path, bodies.Case], Launch]:
    def launch(python: str, model: Path, folder: Path, _: bodies.Case) -> Launch:
        http, grpc, metrics = free_ports(3)
        ports = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        (folder / "settings.json").write_text(json.dumps({"debug": False, **ports, **settings}))
        uri = str(model / "model.lgb" if "lightgbm" in implementation else model)
        described = {"name": "model", "implementation": implementation, "parameters": {"uri": uri}}
        (folder / "model-settings.json").write_text(json.dumps(described))
        command = [str(Path(python).with_name("mlserver")), "start", str(folder)]
        return Launch(command, f"http://127.0.0.1:{http}/v2/models/model/infer", _path(python))

    return launch


def _triton(python: str, model: Path, folder: Path, case: bodies.Case) -> Launch:
    """The server's binary of the pytriton wheel, and its Python backend for this interpreter's version."""
    asked = "import sys, sysconfig, pytriton; print(sys.base_prefix, sysconfig.get_config_var('LIBDIR'), "
    asked += "sysconfig.get_path('purelib'), pytriton.__path__[0], '%d.%d' % sys.version_info[:2], sep='\\n')"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    home, libraries, packages, pytriton, version = told.split()
    server = Path(pytriton) / "tritonserver"
    repository = folder / "repository"
    (repository / "model" / "1").mkdir(parents=True)
    shutil.copy(PROGRAMS / "triton_model.py", repository / "model" / "1" / "model.py")
    shutil.copy(PROGRAMS / "scoring.py", repository / "model" / "1")
    shutil.copytree(server / "backends", folder / "backends")
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends/python")
    (repository / "model" / "config.pbtxt").write_text(_triton_config(model, case))
    http, grpc = free_ports(2)
    command = [str(server / "bin" / "tritonserver"), f"--model-repository={repository}", "--allow-metrics=false"]
    command += [f"--backend-directory={folder / 'backends'}", "--http-address=127.0.0.1", f"--http-port={http}"]
    command += ["--grpc-address=127.0.0.1", f"--grpc-port={grpc}"]
    loaded = os.pathsep.join([libraries, f"{packages}/nvidia_pytriton.libs"])
    variables = {"LD_LIBRARY_PATH": loaded, "PYTHONHOME": home, "PYTHONPATH": packages}
    return Launch(command, f"http://127.0.0.1:{http}/v2/models/model/infer", variables)


def _triton_config(model: Path, case: bodies.Case) -> str:
    def tensor(name: str, type: str, width: int) -> str:
        return f'{{ name: "{name}" data_type: {type} dims: [ {width} ] }}'

    inputs = [tensor(name, _TRITON_TYPES[type], 1) for name, type in case.types.items()]
    if case.matrix:
        inputs = [tensor("input", "TYPE_FP64", len(case.types))]
    return f"""
        name: "model" backend: "python" max_batch_size: {2 * bodies.MANY} dynamic_batching {{ }}
        input [ {", ".join(inputs)} ]
        output [ {tensor("probability", "TYPE_FP64", 1)} ]
        instance_group [ {{ kind: KIND_CPU count: 1 }} ]
        parameters {{ key: "model" value: {{ string_value: "{model}" }} }}
    """


def _path(python: str) -> dict[str, str]:
    """Programs of a peer's environment start others of it by name; ours are found from the root."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"PATH": path, "PYTHONPATH": str(processes.ROOT), "PYTHONWARNINGS": "ignore"}


def hello(program: str) -> Callable[[], Launch]:
    """A server that says hello; run by the project's own interpreter."""

    def launch() -> Launch:
        [port] = free_ports(1)
        command = [sys.executable, "-m", f"benchmarks.inference.peers.{program}", str(port)]
        return Launch(command, f"http://127.0.0.1:{port}/", _path(sys.executable))

    return launch


HELLOS = {"hello on ASGI": hello("hello_asgi"), "hello on a Protocol": hello("hello_protocol")}
_V2 = (bodies.open_inference, bodies.read_tensors)
_PYFUNC = (bodies.open_inference_numbers, bodies.read_tensors)
_LIGHTGBM, _MLFLOW = "mlserver_lightgbm.LightGBMModel", "mlserver_mlflow.MLflowRuntime"
_ONLY = ("lightgbm",)
SERVERS = [
    Server("Triton", "triton", _triton, *_V2),
    Server("MLServer in process", "mlserver", _mlserver(_LIGHTGBM, parallel_workers=0), *_V2, _ONLY),
    Server("MLServer", "mlserver", _mlserver(_LIGHTGBM), *_V2, _ONLY),
    Server("MLServer with MLflow", "mlserver", _mlserver(_MLFLOW), *_PYFUNC),
    Server("kserve", "kserve", _program("kserve_model"), *_V2),
    Server("LitServe", "litserve", _program("litserve_api"), bodies.plain, bodies.read_predictions),
    Server("BentoML", "bentoml", _bentoml, bodies.wrapped, bodies.read_predictions),
    Server("Ray Serve", "ray", _program("ray_deployment", _ray), bodies.plain, bodies.read_predictions),
    Server("mlflow", "mlflow", _mlflow, bodies.mlflow_scoring, bodies.read_predictions),
]
