import json
import os
import socket
from pathlib import Path

import pytest

from millpond.core.errors import Conflict
from millpond.server.lock import InstanceLock, refuse_second, running_instance
from millpond.server.sockets import listen, part_socket


def test_a_second_instance_is_told_where_the_first_runs(tmp_path: Path) -> None:
    assert running_instance(tmp_path) is None
    with InstanceLock(tmp_path) as lock:
        lock.publish("http://127.0.0.1:8200")
        with pytest.raises(Conflict) as refused, InstanceLock(tmp_path):
            pass
        assert f"at http://127.0.0.1:8200 (process {os.getpid()})" in refused.value.what
        assert f"kill {os.getpid()}" in refused.value.hint
        found = running_instance(tmp_path)
        assert found is not None
        assert (found["pid"], found["url"]) == (os.getpid(), "http://127.0.0.1:8200")
    assert running_instance(tmp_path) is None
    with InstanceLock(tmp_path):
        pass


def test_what_a_killed_instance_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:1"}))
    assert running_instance(tmp_path) is None
    with InstanceLock(tmp_path):
        pass


def test_a_port_in_use_is_a_clear_error() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Conflict) as refused:
            listen("127.0.0.1", port)
    assert str(port) in refused.value.what
    assert "--port" in refused.value.hint
    listen("127.0.0.1", port).close()


def test_a_socket_path_is_short_enough_however_deep_the_project(tmp_path: Path) -> None:
    near = part_socket(tmp_path / "run", "inference")
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "run"
    far = part_socket(deep, "inference")
    assert far == part_socket(deep, "inference")
    assert far != near
    for path in (near, far):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.unlink()
        assert path.parent.stat().st_mode & 0o077 == 0
    far.parent.rmdir()


def test_a_second_start_is_refused_with_the_addresses_of_the_first(tmp_path: Path) -> None:
    refuse_second(tmp_path)
    with InstanceLock(tmp_path) as lock:
        lock.publish("http://127.0.0.1:1", "http://127.0.0.1:2", "127.0.0.1:3")
        found = running_instance(tmp_path)
        assert found is not None
        assert (found["serving"], found["grpc"]) == ("http://127.0.0.1:2", "127.0.0.1:3")
        with pytest.raises(Conflict, match="http://127.0.0.1:1"):
            refuse_second(tmp_path)
