"""Children that are started, watched and ended, as real processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from millpond.core.child_processes import BackOff
from millpond.server.processes import Child, Supervisor

QUICK = BackOff(first=0.05, longest=0.4, healthy=5)
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("will not", flush=True))
print("up", flush=True)
while True:
    time.sleep(0.1)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["kernel", "pipe"])
def watch(request: pytest.FixtureRequest) -> Literal["kernel", "pipe"]:
    return request.param


@pytest.fixture
def supervisor(tmp_path: Path, watch: Literal["kernel", "pipe"]) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "logs", back_off=QUICK, grace=1.0, watch=watch)
    yield made
    made.stop()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def pid_of(supervisor: Supervisor, wait_until: Callable[..., None]) -> int:
    wait_until(lambda: supervisor.status()[0].state == "running")
    pid = supervisor.status()[0].pid
    assert pid is not None
    return pid


def test_output_goes_to_the_log(supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    code = 'import sys, os; print("out", os.environ["X"]); print("err", file=sys.stderr); import time; time.sleep(60)'
    supervisor.start(Child("talker", [sys.executable, "-u", "-c", code], {"X": "set"}, tmp_path))
    log = tmp_path / "logs" / "talker.log"
    wait_until(lambda: log.read_text() == "out set\nerr\n")


def test_a_child_that_ends_is_started_again_with_growing_waits(
    supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    ran = tmp_path / "ran"
    code = f"import time; open({str(ran)!r}, 'a').write(f'{{time.time()}}\\n'); raise SystemExit(3)"
    supervisor.start(Child("quitter", python(code)))
    wait_until(lambda: supervisor.status()[0].restarts >= 5)
    times = [float(line) for line in ran.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert supervisor.status()[0].exit_code == 3
    assert gaps[3] > gaps[0] + 0.2
    assert gaps[0] > 0.05
    assert "ended with exit code 3" in (tmp_path / "logs" / "quitter.log").read_text()


def test_a_command_that_is_not_there_shows_in_its_log(
    supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    supervisor.start(Child("missing", ["/no/such/program"]))
    supervisor.start(Child("lost", python("pass"), directory=tmp_path / "nowhere"))
    wait_until(lambda: "/no/such/program cannot be started" in (tmp_path / "logs" / "missing.log").read_text())
    wait_until(lambda: "cannot be started" in (tmp_path / "logs" / "lost.log").read_text())
    assert [status.state for status in supervisor.status()] != ["running", "running"]


def test_a_stale_socket_is_removed_before_a_start(
    supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    stale = tmp_path / "worker.sock"
    stale.write_text("left by a killed process")
    code = f"import os, time; print(os.path.exists({str(stale)!r}), flush=True); time.sleep(60)"
    supervisor.start(Child("worker", python(code), socket=stale))
    wait_until(lambda: (tmp_path / "logs" / "worker.log").read_text() == "False\n")


def test_stop_ends_even_those_who_will_not(
    supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    supervisor.start(Child("stubborn", python(STUBBORN)))
    supervisor.start(Child("willing", python("import time; time.sleep(60)")))
    wait_until(lambda: "up" in (tmp_path / "logs" / "stubborn.log").read_text())
    pids = [status.pid for status in supervisor.status()]
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 4
    assert [status.state for status in supervisor.status()] == ["stopped", "stopped"]
    assert not any(alive(pid) for pid in pids if pid)
    assert "will not" in (tmp_path / "logs" / "stubborn.log").read_text()


def test_what_a_child_started_ends_with_it(
    supervisor: Supervisor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    code = """
    import subprocess, sys, time
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
    time.sleep(60)
    """
    supervisor.start(Child("parent", python(code)))
    log = tmp_path / "logs" / "parent.log"
    wait_until(lambda: log.read_text().strip().isdigit())
    grandchild = int(log.read_text())
    os.kill(pid_of(supervisor, wait_until), signal.SIGKILL)
    wait_until(lambda: not alive(grandchild))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_the_control_process_whatever_ended_it(
    tmp_path: Path, watch: str, how: signal.Signals, wait_until: Callable[..., None]
) -> None:
    code = f"""
    import time
    from pathlib import Path
    from millpond.server.processes import Child, Supervisor
    supervisor = Supervisor(Path({str(tmp_path)!r}), watch={watch!r})
    supervisor.start(Child("stubborn", {python(STUBBORN)!r}))
    while supervisor.status()[0].pid is None:
        time.sleep(0.01)
    print(supervisor.status()[0].pid, flush=True)
    time.sleep(60)
    """
    control = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    assert control.stdout is not None
    child = int(control.stdout.readline())
    wait_until(lambda: (tmp_path / "stubborn.log").exists() and "up" in (tmp_path / "stubborn.log").read_text())
    group = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _group(int(p.name)) == child]
    assert child in group
    control.send_signal(how)
    control.wait(10)
    control.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in group), 5)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def test_a_child_lives_on_when_the_thread_that_asked_for_it_ends(
    supervisor: Supervisor, wait_until: Callable[..., None]
) -> None:
    """The kernel ties a child to the thread that made it, which must not be the caller's."""
    import threading

    caller: Any = threading.Thread(
        target=supervisor.start, args=(Child("long", python("import time; time.sleep(60)")),)
    )
    caller.start()
    caller.join()
    pid = pid_of(supervisor, wait_until)
    time.sleep(0.5)
    assert alive(pid)
    assert supervisor.status()[0].restarts == 0
