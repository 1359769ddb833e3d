"""Every route of the server asks who is there, unless it is on the list of open ones."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from millpond.access.secrets import digest
from millpond.core.time import now
from millpond.server.guard import OPEN_PREFIX, OPEN_ROUTES, is_open

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def every_route(app: Starlette) -> Iterator[tuple[str, str]]:
    """Method and path of every route, parameters filled in; a mount stands for what is below it."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield "GET", route.path + "/console.css"
            continue
        assert isinstance(route, Route), f"a route of an unknown kind: {route!r}"
        path = re.sub(r"\{\w+:int\}", "3", route.path)
        path = re.sub(r"\{\w+(:path)?\}", "something", path)
        for method in sorted(route.methods or METHODS):
            yield method, path


def test_the_walk_sees_the_whole_server(faces: Any) -> None:
    paths = {path for _, path in every_route(faces.app)}
    assert len(paths) > 25
    for one in (
        "/",
        "/api/v1/whoami",
        "/api/v1/openapi.json",
        "/v2/something",
        "/v2/openapi.json",
        "/mlflow/something",
        "/metrics",
        "/audit",
        "/static/console.css",
    ):
        assert one in paths


def test_the_open_routes_are_these_and_no_others(faces: Any) -> None:
    assert {"/healthz", "/v2/health/live", "/v2/health/ready", "/login"} == OPEN_ROUTES
    assert OPEN_PREFIX == "/static/"
    walked = {path for _, path in every_route(faces.app) if is_open(path)}
    assert walked == {"/healthz", "/login", "/static/console.css"}


def bad_credentials(faces: Any) -> dict[str, dict[str, str]]:
    access = faces.access
    revoked = access.issue_token("admin")
    access.revoke_token(revoked.token.id)
    ended, expired, code = access.open_session("admin"), access.open_session("admin"), access.issue_login_code("admin")
    access.revoke_session(ended)
    with sqlite3.connect(access._engine.url.database) as raw:
        raw.execute(
            "UPDATE sessions SET expires_at = '2020-01-01 00:00:00.000000' WHERE hash = ?",
            (digest(expired),),
        )
    cookie, basic = faces.services.cookie, base64.b64encode(f"admin:{revoked.secret}".encode()).decode()
    return {
        "none": {},
        "a token made up": {"authorization": "Bearer mp_" + "x" * 43},
        "an empty token": {"authorization": "Bearer "},
        "a revoked token": {"authorization": f"Bearer {revoked.secret}"},
        "a revoked token as a password": {"authorization": f"Basic {basic}"},
        "the token as a cookie": {"cookie": f"{cookie}={faces.token}"},
        "a session as a token": {"authorization": f"Bearer {access.open_session('admin')}"},
        "a session that was ended": {"cookie": f"{cookie}={ended}"},
        "a session that has expired": {"cookie": f"{cookie}={expired}"},
        "a login code as a session": {"cookie": f"{cookie}={code}"},
        "a login code as a token": {"authorization": f"Bearer {code}"},
        "a header of ours": {"x-millpond-user": "admin", "X_Millpond_User": "admin"},
        "a bad token beside a good session": {
            "authorization": "Bearer mp_wrong",
            "cookie": f"{cookie}={access.open_session('admin')}",
        },
    }


def test_no_route_answers_without_an_identity(faces: Any) -> None:
    client = faces.client(sec_fetch_site="same-origin")
    refused = 0
    for who, headers in bad_credentials(faces).items():
        for method, path in every_route(faces.app):
            if is_open(path):
                continue
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, f"{method} {path} with {who}: {answer.status_code}"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            refused += 1
    assert refused > 400


def test_a_path_that_does_not_exist_is_not_told_to_strangers(faces: Any) -> None:
    for path in ("/nothing", "/api/v1/nothing", "/api/v2", "/v2", "/mlflow", "/healthz/", "//healthz", "/static"):
        assert faces.client().get(path).status_code == 401, path
    assert faces.program().get("/api/v1/nothing").status_code == 404


def test_every_route_answers_the_administrator(faces: Any) -> None:
    client = faces.program()
    client.headers["x-request-timeout"] = "0.1"  # nothing listens where predictions are answered
    for method, path in every_route(faces.app):
        if path == "/login":
            continue
        assert client.request(method, path).status_code not in (401, 403), f"{method} {path}"


def test_browsers_are_shown_the_way_to_the_login_page(faces: Any) -> None:
    browser = faces.client(accept="text/html,application/xhtml+xml")
    answer = browser.get("/models/late_arrival?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/models/late_arrival%3Fx%3D1")
    assert browser.get("/").headers["location"] == "/login"
    assert browser.get("/mlflow/").headers["location"] == "/login?next=/mlflow/"
    for path in ("/api/v1/whoami", "/v2/models/x", "/metrics", "/mlflow/api/2.0/mlflow/runs/get"):
        assert browser.get(path).status_code == 401
    assert browser.post("/models/late_arrival/predict").status_code == 401
    partial = browser.post("/models/late_arrival/predict", headers={"hx-request": "true"})
    assert (partial.status_code, partial.headers["hx-redirect"]) == (401, "/login")


def test_a_websocket_is_refused(faces: Any) -> None:
    from starlette.websockets import WebSocketDisconnect

    for path in ("/", "/v2/x", "/mlflow/x", "/login"):
        with pytest.raises(WebSocketDisconnect), faces.program().websocket_connect(path):
            pass


def test_tokens_and_sessions_let_in(faces: Any) -> None:
    assert faces.program().get("/api/v1/whoami").json() == {"name": "admin", "kind": "user", "by": "token"}
    basic = base64.b64encode(f"whoever:{faces.token}".encode()).decode()
    assert faces.client(authorization=f"Basic {basic}").get("/api/v1/whoami").json()["by"] == "token"
    assert faces.browser().get("/api/v1/whoami").json()["by"] == "session"
    # Jupyter's and others' own schemes are not ours: the cookie counts.
    browser = faces.browser()
    assert browser.get("/api/v1/whoami", headers={"authorization": "token abc"}).json()["by"] == "session"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-site"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:8200", "sec-fetch-site": "cross-site"},
    ],
)
def test_what_a_cookie_does_must_come_from_our_own_pages(faces: Any, headers: dict[str, str]) -> None:
    browser = faces.browser()
    for path in (
        "/api/v1/models/late_arrival/promote",
        "/models/late_arrival/versions/3/promote",
        "/v2/x",
        "/mlflow/x",
    ):
        answer = browser.post(path, headers=headers, json={"version": 3, "why": "mischief"})
        assert answer.status_code == 403, path
    assert faces.platform.promotions == []
    assert browser.get("/api/v1/whoami", headers=headers).status_code == 200
    # A program with a token is no browser: nothing is sent without its knowing.
    program = faces.program()
    answer = program.post("/api/v1/models/late_arrival/promote", headers=headers, json={"version": 3, "why": "better"})
    assert answer.status_code == 200


def test_a_cookie_without_a_word_of_its_origin_does_nothing(faces: Any) -> None:
    client = faces.client(cookie=f"{faces.services.cookie}={faces.access.open_session('admin')}")
    assert client.get("/api/v1/whoami").status_code == 200
    assert client.post("/logout").status_code == 403


def test_every_answer_tells_the_browser_to_take_care(faces: Any, tmp_path: Path) -> None:
    answers = {
        "page": faces.browser().get("/"),
        "api": faces.program().get("/api/v1/overview"),
        "refusal": faces.client().get("/api/v1/overview"),
        "login": faces.client().get("/login"),
        "nothing": faces.program().get("/nothing"),
        "static": faces.client().get("/static/console.css"),
    }
    for name, answer in answers.items():
        assert answer.headers["x-content-type-options"] == "nosniff", name
        assert answer.headers["x-frame-options"] == "SAMEORIGIN", name
        assert answer.headers["content-security-policy"].startswith("default-src 'self'"), name
        assert "unsafe" not in answer.headers["content-security-policy"], name
        assert "access-control-allow-origin" not in answer.headers, name
    assert answers["page"].headers["cache-control"] == "no-store"


def test_an_expired_code_is_no_way_in(faces: Any) -> None:
    late = faces.access.issue_login_code("admin", at=now() - timedelta(minutes=11))
    answer = faces.client(accept="text/html").get(f"/login?code={late}")
    assert answer.status_code == 401
    assert "older than ten minutes" in answer.text
    assert "set-cookie" not in answer.headers
