"""Skew over HTTP: the API and the console's page, on the example platform."""

from __future__ import annotations

from typing import Any

PATH = "/api/v1/models/late_arrival/skew"


def test_the_api_measures_and_gives_the_newest(faces: Any) -> None:
    client = faces.program()
    assert client.get(PATH).status_code == 404
    made = client.post(PATH, json={"all": True, "since": "2013-12-01T00:00:00Z"})
    assert made.status_code == 200
    report = made.json()
    assert (report["version"], report["looked_at"], report["sample"]) == (2, 1280, None)
    assert report["since"] == "2013-12-01T00:00:00Z"
    assert report["measured_by"] == "admin"
    [example] = report["features"][0]["examples"]
    assert example["receipt"] == f"/predictions/{example['prediction_id']}"
    assert client.get(PATH).json() == report
    assert client.get(PATH, params={"version": 3}).status_code == 404
    assert client.post(PATH, json={"version": 3, "sample": 7}).json()["looked_at"] == 7
    assert client.get(PATH, params={"version": 2}).json() == report


def test_the_api_refuses_what_makes_no_sense(faces: Any) -> None:
    client = faces.program()
    for body in ({"sample": 0}, {"version": 0}, {"sample": "many"}, {"unknown": 1}, {"since": "2013-12-01T00:00:00"}):
        answer = client.post(PATH, json=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "RequestError"), body
    backwards = {"since": "2013-12-02T00:00:00Z", "until": "2013-12-01T00:00:00Z"}
    assert client.post(PATH, json=backwards).status_code == 422
    assert client.post("/api/v1/models/nothing/skew", json={}).status_code == 404
    assert client.post(PATH, json={"version": 9}).status_code == 404
    assert faces.platform.measured == []


def test_it_is_described(faces: Any) -> None:
    path = faces.program().get("/api/v1/openapi.json").json()["paths"]["/api/v1/models/{model}/skew"]
    assert set(path) == {"get", "post"}
    assert "requestBody" in path["post"]


def test_the_page_measures_and_shows_what_differs_first(faces: Any) -> None:
    browser = faces.browser()
    empty = browser.get("/models/late_arrival/skew")
    assert empty.status_code == 200
    assert "Not measured yet" in empty.text
    done = browser.post("/models/late_arrival/skew", data={})
    assert (done.status_code, done.headers["location"]) == (303, "/models/late_arrival/skew?version=2")
    text = browser.get(done.headers["location"]).text
    assert "3 of 2,560 values differ" in text
    assert text.index("mean_delay_1h") < text.index("plane_facts__seats") < text.index("airport_weather__temp")
    assert 'href="/predictions/p_06f3kd8s1a2b3c4d5e6f7g8h9j"' in text
    assert "AA-1&lt;script&gt;" in text
    assert "There is no table" in text
    assert '"/models/late_arrival/skew"' in browser.get("/models/late_arrival").text
    assert browser.post("/models/late_arrival/skew", data={"all": "yes", "version": "1"}).status_code == 303
    assert faces.platform.measured[-1].sample is None


def test_the_page_says_what_is_wrong(faces: Any) -> None:
    browser = faces.browser()
    assert browser.get("/models/nothing/skew").status_code == 404
    assert browser.post("/models/nothing/skew", data={}).status_code == 404
    wrong = browser.post("/models/late_arrival/skew", data={"version": "9"})
    assert wrong.status_code == 422
    assert "has no version 9" in wrong.text
    assert browser.get("/models/late_arrival/skew?version=x").status_code == 200
