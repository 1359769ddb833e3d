from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

PAGES = [
    "/",
    "/tables/flights",
    "/tables/gates_of_the_day",
    "/features",
    "/features?search=tag:weather",
    "/features?search=nothing",
    "/features/airport_weather",
    "/models/late_arrival",
    "/models/arrival_delay",
    "/models/late_arrival/versions/3",
    "/models/late_arrival/versions/1",
    "/predictions",
    "/predictions?model=late_arrival",
    "/audit",
]


@pytest.mark.parametrize("path", PAGES)
def test_every_link_of_every_page_leads_somewhere(faces: Any, path: str) -> None:
    browser = faces.browser()
    text = browser.get(path).text
    for address in sorted(set(re.findall(r'(?:href|src)="([^"]+)"', text))):
        assert address.startswith(("/", "#")), f"{address} is not on this server"
        if address.startswith("/mlflow"):
            continue
        answer = browser.get(address)
        assert answer.status_code == 200, address


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_nothing_inline_and_nothing_from_outside(faces: Any, path: str) -> None:
    text = faces.browser().get(path).text
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r'xmlns="[^"]+"', "", text))
    assert text.count("<h1") == 1
    for field in re.findall(r"<(?:input|select)\b(?![^>]*type=\"hidden\")[^>]*>", text):
        found = re.search(r'id="([^"]+)"', field)
        assert found, field
        assert f'<label for="{found[1]}"' in text


def test_the_feature_catalog_is_searched(faces: Any) -> None:
    browser = faces.browser()
    whole = browser.get("/features").text
    assert "11 features" in whole
    found = browser.get("/features?search=tag:weather", headers={"hx-request": "true"}).text
    assert "<html" not in found
    assert "3 features" in found
    assert "airport_traffic" not in found
    nothing = browser.get("/features", params={"search": "<i>x</i>"}).text
    assert "No feature has all of these words." in nothing
    assert "<i>x</i>" not in nothing


def test_a_feature_view_says_what_it_means_and_meant(faces: Any) -> None:
    text = faces.browser().get("/features/airport_weather").text
    for said in (
        "Declared, and not applied yet.",
        "temp: within: 3h -&gt; 6h",
        "Over 327,346 examples (3 different origin) of the training set",
        "which is not what is declared now",
        "flights.csv.zip",
        "mean_delay_1h: over: 2h -&gt; 1h",
        "another than declared now",
        "&lt;b&gt;fog&lt;/b&gt;",
    ):
        assert said in text
    assert "<b>fog" not in text


def test_the_prediction_form_answers(faces: Any) -> None:
    browser = faces.browser()
    form = {
        "origin": "JFK",
        "scheduled_at": "2013-12-20T22:15:00",
        "distance": "187",
        "carrier": "",
        "charter": "false",
    }
    whole = browser.post("/models/late_arrival/predict", data=form)
    assert whole.status_code == 200
    assert "<html" in whole.text
    partial = browser.post("/models/late_arrival/predict", data=form, headers={"hx-request": "true"})
    assert "<html" not in partial.text
    assert "62.3%" in partial.text
    receipt = re.search(r'href="(/predictions/[^"]+)"', partial.text)
    assert receipt
    page = browser.get(receipt[1])
    assert page.status_code == 200
    for said in (
        "airport_traffic__mean_delay_1h",
        "41.25",
        "2013-12-20 22:06:00 UTC",
        "9d3f6f0d3a4b",
        "asked by admin",
    ):
        assert said in page.text
    stored = faces.platform.receipts[receipt[1].rpartition("/")[2]]
    assert (stored.requested_by, stored.request["charter"]) == ("admin", False)
    assert "carrier" not in stored.request


def test_form_errors_stand_beside_their_fields(faces: Any) -> None:
    browser = faces.browser()
    answer = browser.post("/models/late_arrival/predict", data={"origin": "", "distance": "far"})
    assert answer.status_code == 422
    for said in ("origin is needed.", "scheduled_at is needed.", "distance: &#39;far&#39; is not a number."):
        assert said in answer.text
    answer = browser.post(
        "/models/late_arrival/predict", data={"origin": "XX", "scheduled_at": "2013-12-20T22:15", "dest": "<b>"}
    )
    assert answer.status_code == 422
    assert '<p class="error" id="e-origin">&#39;XX&#39; is no airport. Three capital letters' in answer.text
    assert "<b>" not in answer.text
    assert not faces.platform.receipts


def test_a_promotion_needs_a_reason(faces: Any) -> None:
    browser = faces.browser()
    address = "/models/late_arrival/versions/3/promote"
    refused = browser.post(address, data={"why": "  "})
    assert (refused.status_code, "Say why" in refused.text) == (422, True)
    assert not faces.platform.promotions
    done = browser.post(address, data={"why": "better"})
    assert (done.status_code, done.headers["location"]) == (303, "/models/late_arrival/versions/3")
    assert faces.platform.promotions[0].by == "admin"


def test_a_report_is_shut_in(faces: Any) -> None:
    answer = faces.browser().get("/models/late_arrival/versions/3/report")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert faces.browser().get("/models/late_arrival/versions/1/report").status_code == 404


def test_error_pages_are_pages(faces: Any) -> None:
    browser = faces.browser()
    missing = browser.get("/tables/fligths")
    assert missing.status_code == 404
    assert "Did you mean &#39;flights&#39;" in missing.text
    assert browser.get("/nothing").status_code == 404
    waiting = browser.get("/mlflow/")
    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "2")
    assert '<meta http-equiv="refresh" content="2">' in waiting.text
    assert faces.program().get("/mlflow/api/2.0/x").json()["retryable"] is True


def test_mlflow_that_cannot_be_loaded_is_said_so(faces: Any) -> None:
    def broken() -> Any:
        raise RuntimeError("no disk space")

    faces.parts.mlflow.load(broken)
    page = faces.browser().get("/mlflow/")
    assert (page.status_code, "no disk space" in page.text) == (503, True)
    assert "http-equiv" not in page.text
    assert faces.client().get("/healthz").json()["mlflow"] == "failed"


def test_the_tampered_log_is_said_so(faces: Any, tmp_path: Any) -> None:
    import sqlite3

    assert "intact" in faces.browser().get("/audit").text
    with sqlite3.connect(tmp_path / "platform.db") as raw:
        raw.execute("DROP TRIGGER audit_refuses_update")
        raw.execute("UPDATE audit SET who = 'bob' WHERE sequence = 1")
    assert "has been tampered with" in faces.browser().get("/audit").text


def test_the_overview_asks_again_while_a_deployment_starts(faces: Any) -> None:
    browser = faces.browser()
    assert "hx-trigger" not in browser.get("/").text
    faces.platform._deployed = "starting"
    assert 'hx-trigger="every 2s"' in browser.get("/").text
    piece = browser.get("/", headers={"hx-request": "true"}).text
    assert piece.lstrip().startswith('<div id="walk"')
    assert "<html" not in piece


def test_all_outputs_of_a_registered_model_are_shown(faces: Any) -> None:
    [made] = faces.platform.predict("late_arrival", [{"origin": "JFK"}], None, "ann")
    id = made.prediction_id
    outputs = {"price": 12.5, "label": "<b>", "parts": [0.5, None]}
    faces.platform.receipts[id] = replace(faces.platform.receipts[id], task="other", answer=None, outputs=outputs)
    for path in ("/predictions", f"/predictions/{id}"):
        text = faces.browser().get(path).text
        for shown in ("price</span>", "12.5</span>", "label</span> &lt;b&gt;", "[0.5, null]"):
            assert shown in text, (path, shown)
