from __future__ import annotations

from typing import Any

import pytest


def test_the_one_time_address_signs_in_once(faces: Any) -> None:
    browser = faces.client(accept="text/html", sec_fetch_site="none")
    code = faces.access.issue_login_code("admin")
    answer = browser.get(f"/login?code={code}&next=/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=2592000" in cookie
    assert "Secure" not in cookie
    assert browser.get("/audit").status_code == 200
    again = faces.client(accept="text/html").get(f"/login?code={code}")
    assert (again.status_code, "set-cookie" in again.headers) == (401, False)
    assert faces.access.audit.entries(limit=1)[0].action == "sign in"


def test_a_preview_of_the_address_does_not_use_it_up(faces: Any) -> None:
    code = faces.access.issue_login_code("admin")
    preview = faces.client(sec_purpose="prefetch;prerender").get(f"/login?code={code}")
    assert (preview.status_code, "set-cookie" in preview.headers) == (204, False)
    assert faces.access.redeem_login_code(code) is not None


def test_an_address_in_another_sites_page_asks_first(faces: Any) -> None:
    """Else that site could sign the user in as somebody of its choosing."""
    code = faces.access.issue_login_code("admin")
    browser = faces.client(accept="text/html", sec_fetch_site="cross-site")
    answer = browser.get(f"/login?code={code}")
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert "Sign in with it?" in answer.text
    own = {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8200"}
    assert browser.post("/login", data={"code": code, "next": "/"}, headers=own).status_code == 303


def test_an_access_token_signs_in(faces: Any) -> None:
    browser = faces.client(accept="text/html", sec_fetch_site="same-origin", origin="http://127.0.0.1:8200")
    wrong = browser.post("/login", data={"token": "mp_wrong"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "not valid" in wrong.text
    assert browser.post("/login", data={"token": ""}).status_code == 401
    right = browser.post("/login", data={"token": f" {faces.token} ", "next": "/models/late_arrival"})
    assert (right.status_code, right.headers["location"]) == (303, "/models/late_arrival")
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("onward", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_the_login_leads_nowhere_else(faces: Any, onward: str) -> None:
    code = faces.access.issue_login_code("admin")
    answer = faces.client(sec_fetch_site="none").get("/login", params={"code": code, "next": onward})
    assert answer.headers["location"] == "/"


def test_the_login_form_of_another_site_is_refused(faces: Any) -> None:
    browser = faces.client(accept="text/html", sec_fetch_site="cross-site", origin="http://evil.example")
    answer = browser.post("/login", data={"token": faces.token})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_signing_out_ends_the_session(faces: Any) -> None:
    browser = faces.browser()
    session = browser.cookies[faces.services.cookie]
    answer = browser.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert faces.access.authenticate_session(session) is None
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_text_on_the_login_page_is_escaped(faces: Any) -> None:
    answer = faces.client().get("/login", params={"next": '/"><script>x</script>'})
    assert "<script>x" not in answer.text
