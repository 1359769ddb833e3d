from __future__ import annotations

import asyncio
from typing import Any

from millpond.registry.mlflow_app import child_environment, without_prefix


def ask(path: str, raw_path: bytes | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scopes that the application saw, and the messages that the client got."""
    seen: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    scope = {"type": "http", "path": path, "root_path": "/outer", "headers": []}
    if raw_path is not None:
        scope["raw_path"] = raw_path
    asyncio.run(without_prefix(inner, "/mlflow")(scope, receive, send))
    return seen, sent


def test_the_prefix_is_gone_from_path_and_raw_path() -> None:
    (scope,), sent = ask("/mlflow/api/a b", b"/mlflow/api/a%20b")
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/api/a b", b"/api/a%20b", "")
    assert sent == []


def test_the_bare_prefix_is_redirected_to_its_folder() -> None:
    seen, sent = ask("/mlflow")
    assert seen == []
    assert sent[0]["status"] == 307
    assert (b"location", b"/mlflow/") in sent[0]["headers"]


def test_other_paths_do_not_reach_the_application() -> None:
    for path in ("/", "/mlflowers", "/api/mlflow"):
        seen, sent = ask(path)
        assert seen == []
        assert sent[0]["status"] == 404


def test_children_do_not_inherit_what_the_server_in_this_process_reads() -> None:
    environment = {
        "PATH": "/bin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///x",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "file:///x",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost",
    }
    assert child_environment(environment) == {"PATH": "/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
