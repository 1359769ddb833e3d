"""What benchmarks share: fresh processes on the same two processors, their peak memory, and the environments of peers.

Standard library only: it is imported by the interpreters of peers too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.keeper import descendants

ROOT = Path(__file__).resolve().parents[1]
CORES = 2
SERVER_CORE, *_, CLIENT_CORE = sorted(os.sched_getaffinity(0))[:CORES] * 2  # the same where there is but one
_MODELS = ("lightgbm>=4.7,<4.8", "scikit-learn>=1.9,<1.10", "pandas", "cloudpickle")
PEERS = {  # what cannot live in the project's own environment, because of older libraries, or need not
    "feast": ("feast[duckdb,redis]>=0.67,<0.68", "duckdb>=1.5,<2", "sqlglot<30.18"),
    "polars": ("polars>=2.1,<3", "pyarrow>=21"),
    "mlflow": ("mlflow>=3.17,<3.18", *_MODELS),
    "bentoml": ("bentoml==1.4.39", *_MODELS),  # 1.4.40 wants a newer certifi than others allow
    "litserve": ("litserve>=0.2,<0.3", *_MODELS),
    "kserve": ("kserve>=0.21,<0.22", *_MODELS, "pandas<3"),
    "kserve-client": ("kserve>=0.21,<0.22", "pandas<3"),  # asked by a test
    "ray": ("ray[serve]>=2.50,<3", *_MODELS),
    "mlserver": (  # a newer uvloop ends its worker processes
        "mlserver==1.7.1",
        "mlserver-lightgbm==1.7.1",
        "mlserver-mlflow==1.7.1",
        "mlflow>=3.17,<3.18",
        "uvloop<0.22",
        *_MODELS,
    ),
    "triton": ("nvidia-pytriton>=0.7,<0.8", *_MODELS, "pandas<3", "numpy<2"),  # brings the binary of the server
}


def peer(name: str) -> str:
    """The interpreter of a peer's environment, which is made when it is missing or has other requirements.

    Raises:
        SystemExit: It cannot be made.
    """
    folder = ROOT / ".venv-peers" / name
    python, installed = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps(PEERS[name])
    if installed.exists() and installed.read_text() == wanted:
        return str(python)
    print(f"installing {name} into {folder} ...", file=sys.stderr, flush=True)
    uv = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit(f"{name} is needed, and there is no uv to install it with: run `make install` first")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *PEERS[name]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} is needed, and cannot be installed: {done.stderr.strip()[-500:]}")
    installed.write_text(wanted)
    return str(python)


def kept(command: Sequence[str], core: int | None = None) -> list[str]:
    """The command under a keeper, which ends all its processes with it, with us, and on SIGTERM; see `keeper`."""
    program = str(Path(__file__).with_name("keeper.py"))
    return [sys.executable, "-IS", program, "-" if core is None else str(core), *command]


def child(module: str, *arguments: str, python: str = sys.executable, seconds: float = 1800) -> dict[str, Any]:
    """Run `python -m module arguments` in a fresh process; what it printed with `tell`.

    Raises:
        SystemExit: It failed, or took longer than `seconds`; the end of what it said is quoted.
    """
    command = kept([python, "-m", module, *arguments])
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", "POLARS_MAX_THREADS": str(CORES), "FEAST_USAGE": "False"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=variables, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as interrupted:
            process.terminate()
            process.wait()
            if isinstance(interrupted, subprocess.TimeoutExpired):
                raise SystemExit(f"{module} {' '.join(arguments)} did not end within {seconds:.0f} s") from None
            raise
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{errors.read()[-2000:]}")
    return dict(json.loads(output.splitlines()[-1]))


def tell(**figures: Any) -> None:
    """Hand figures to the process that called `child`."""
    print(json.dumps(figures), flush=True)


def keep_to_cores() -> None:
    """Use as many processors as every other way does."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def peak(*others: int) -> float:
    """Greatest resident memory so far of this process and of others by id, summed, in MiB.

    Unlike `ru_maxrss`, it does not count what the process had before it became this program. Processes that have
    ended count nothing.
    """
    total = 0
    for process in ("self", *others):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Fill in "seconds" and "cpu" (of this process and those it has started) when the block ends."""
    figures: dict[str, float] = {}
    wall, cpu = time.perf_counter(), _processor_seconds()
    yield figures
    figures.update(seconds=time.perf_counter() - wall, cpu=_processor_seconds() - cpu)


def _processor_seconds() -> float:
    """Of this process, and of its descendants that have not ended, to a hundredth of a second."""
    total = time.process_time()
    for process in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median, and the 99th percentile, in microseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e6, ordered[int(0.99 * len(ordered))] * 1e6
