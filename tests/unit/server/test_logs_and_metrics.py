from pathlib import Path

from millpond.core.capped_log import CappedLog
from millpond.core.child_processes import BackOff
from millpond.core.time import now
from millpond.server.metrics import ServerMetrics, area_of
from millpond.server.processes import ChildStatus


def test_a_log_keeps_within_its_cap(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "logs" / "worker.log", cap=1000)
    for number in range(100):
        log.write(f"line {number:04d} {'x' * 40}\n".encode())
    pieces = sorted(file.name for file in (tmp_path / "logs").iterdir())
    assert pieces == ["worker.log", "worker.log.1"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 1000 for name in pieces)
    assert "line 0099" in (tmp_path / "logs" / "worker.log").read_text()


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "worker.log").mkdir()
    log = CappedLog(tmp_path / "worker.log")
    log.write(b"lost\n")


def test_back_off_doubles_up_to_its_longest() -> None:
    waits = [BackOff(first=0.5, longest=30).after(failures) for failures in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert BackOff().after(10_000) == 30


def test_areas_are_few() -> None:
    paths = {"/": "console", "/api/v1/whoami": "api", "/v2/models/x/infer": "v2", "/mlflow/": "mlflow", "/x": "console"}
    assert {path: area_of(path) for path in paths} == paths


def test_metrics_are_prometheus_text() -> None:
    metrics = ServerMetrics()
    metrics.observe("api", "GET", 200, 0.003)
    metrics.observe("api", "GET", 200, 0.03)
    metrics.observe("api", "POST", 422, 99.0)
    text = metrics.render([ChildStatus("inference", "running", 7, 2, now())], True)
    lines = text.splitlines()
    assert 'millpond_server_requests_total{area="api",method="GET",status="200"} 2' in lines
    assert 'millpond_server_request_seconds_bucket{area="api",le="0.005"} 1' in lines
    assert 'millpond_server_request_seconds_bucket{area="api",le="10"} 2' in lines
    assert 'millpond_server_request_seconds_bucket{area="api",le="+Inf"} 3' in lines
    assert 'millpond_server_request_seconds_count{area="api"} 3' in lines
    assert 'millpond_server_child_restarts_total{child="inference"} 2' in lines
    assert "millpond_server_serving_up 1" in lines
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    assert text.endswith("\n")
