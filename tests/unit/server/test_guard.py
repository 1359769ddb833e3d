import base64

import pytest

from millpond.server.guard import is_open, is_own_page, presented_token
from millpond.server.login import local_path


def scope(**headers: str) -> dict[str, object]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "headers": [(b"host", b"127.0.0.1:8200"), *pairs]}


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer mp_abc", "mp_abc"),
        ("bearer  mp_abc ", "mp_abc"),
        ("Basic " + base64.b64encode(b"ann:mp_abc").decode(), "mp_abc"),
        ("Basic " + base64.b64encode(b":mp_a:c").decode(), "mp_a:c"),
        ("Basic not base64!", ""),
        ("Basic " + base64.b64encode(b"\xff\xfe").decode(), ""),
        ("Bearer", ""),
        ("token abc", None),
        ("", None),
    ],
)
def test_tokens_are_taken_from_bearer_and_basic(header: str, token: str | None) -> None:
    assert presented_token(header) == token


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8200"}, True),
        ({"origin": "http://127.0.0.1:8200"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "https://127.0.0.1:8200"}, False),
        ({"origin": "http://127.0.0.1:8200.evil.example"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8200"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "same-origin", "origin": "http://evil.example"}, False),
    ],
)
def test_only_our_own_pages_are_our_own(headers: dict[str, str], own: bool) -> None:
    assert is_own_page(scope(**headers)) is own


@pytest.mark.parametrize("path", ["/healthz", "/login", "/v2/health/live", "/v2/health/ready", "/static/console.css"])
def test_open_paths(path: str) -> None:
    assert is_open(path)


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "//healthz", "/login/x", "/static", "/statics/x", "/v2/health/live/x", "/LOGIN", ""]
)
def test_paths_that_look_like_open_ones_are_not(path: str) -> None:
    assert not is_open(path)


@pytest.mark.parametrize("text", ["//evil.example", "/\\evil.example", "http://evil.example", "", "x", "/a\r\nb: c"])
def test_the_login_leads_nowhere_else(text: str) -> None:
    assert local_path(text) == "/"


def test_the_login_leads_to_the_page_that_was_wanted() -> None:
    assert local_path("/models/late_arrival?x=1#predict") == "/models/late_arrival?x=1#predict"
