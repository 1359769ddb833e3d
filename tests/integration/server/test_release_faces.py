"""Releases through the API and on the pages."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_release_is_begun_and_moved_with_a_reason(faces: Any) -> None:
    client, address = faces.program(), "/api/v1/models/late_arrival/releases"
    body = {"version": 3, "why": "try it", "steps": [0.1, 1.0], "every": "", "shadow": "30m"}
    begun = client.post(address, json=body)
    assert begun.status_code == 200
    assert (begun.json()["state"], begun.json()["who"]) == ("stepping", "admin")
    assert client.post(f"{address}/advance", json={"why": "it holds"}).json()["step"] == 2
    assert client.post(f"{address}/rollback", json={"why": "it is worse"}).json()["state"] == "rolled back"
    found = client.get(address).json()
    assert [each["state"] for each in found] == ["rolled back", "stepping"]
    assert found[1]["variants"][1]["errors"] == "1 MillpondError"


@pytest.mark.parametrize("move", ["advance", "rollback", "abort", ""])
@pytest.mark.parametrize("body", [{}, {"why": ""}, {"version": 3}, {"why": "x", "other": 1}])
def test_what_is_malformed_is_refused(faces: Any, move: str, body: dict[str, Any]) -> None:
    address = f"/api/v1/models/late_arrival/releases/{move}".rstrip("/")
    answer = faces.program().post(address, json=body)
    assert answer.status_code == 422
    assert answer.json()["hint"].startswith("fields: ")


def test_the_page_shows_the_ladder_and_what_was_counted(faces: Any) -> None:
    text = faces.browser().get("/models/late_arrival").text
    assert '<li class="past">shadow</li>' in text
    assert '<li class="here">5 %</li>' in text
    assert "canary, version 3" in text
    assert "812 so far" in text
    piece = faces.browser().get("/models/late_arrival/release", headers={"hx-request": "true"}).text
    assert piece.lstrip().startswith('<section id="release"')
    assert faces.browser().get("/models/late_arrival/release").status_code == 303


def test_the_buttons_need_a_reason(faces: Any) -> None:
    browser, address = faces.browser(), "/models/late_arrival/release"
    refused = browser.post(address, data={"why": " ", "move": "rollback"})
    assert (refused.status_code, "Say why" in refused.text) == (422, True)
    assert browser.post(address, data={"why": "x", "move": "explode"}).status_code == 422
    assert faces.platform.released[-1].state == "stepping"
    done = browser.post(address, data={"why": "it is worse", "move": "rollback"})
    assert (done.status_code, done.headers["location"]) == (303, "/models/late_arrival#release")
    assert (faces.platform.released[-1].state, faces.platform.released[-1].why) == ("rolled back", "it is worse")
    version = "/models/late_arrival/versions/3/release"
    assert browser.post(version, data={"why": ""}).status_code == 422
    assert browser.post(version, data={"why": "try it"}).status_code == 303
    assert faces.platform.released[-1].why == "try it"
    assert "Go back to the champion before" not in browser.get("/models/late_arrival").text
