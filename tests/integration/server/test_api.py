from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from millpond.server.api import PREDICT, PREFIX

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def test_the_project_at_a_glance(faces: Any) -> None:
    overview = faces.program().get("/api/v1/overview").json()
    assert overview["project"] == "flights"
    flights = next(table for table in overview["tables"] if table["name"] == "flights")
    assert (flights["rows"], flights["snapshot_id"]) == (336776, 7219002839746010000)
    assert {"source": {"kind": "table", "name": "flights"}, "target": {"kind": "view", "name": "airport_traffic"}} in (
        overview["edges"]
    )


def predicted(faces: Any, *rows: Any) -> list[str]:
    """Ids of predictions that were made."""
    made = faces.platform.predict("late_arrival", rows, datetime(2013, 12, 20, 19, tzinfo=UTC), "admin")
    return [each.prediction_id for each in made]


def test_predictions_have_receipts(faces: Any) -> None:
    client = faces.program()
    rows = [{"origin": "JFK", "carrier": "B6"}, {"origin": "LGA"}]
    receipt = client.get(f"/api/v1/predictions/{predicted(faces, *rows)[0]}").json()
    assert receipt["request"] == rows[0]
    assert (receipt["as_of"], receipt["requested_by"]) == ("2013-12-20T19:00:00Z", "admin")
    newest = client.get("/api/v1/predictions", params={"model": "late_arrival", "limit": 1}).json()
    assert len(newest) == 1
    assert client.get("/api/v1/predictions", params={"model": "arrival_delay"}).json() == []


def test_a_version_is_promoted_by_who_asks(faces: Any) -> None:
    body = {"version": 3, "why": "better in every month"}
    done = faces.program().post("/api/v1/models/late_arrival/promote", json=body).json()
    assert done == {"model": "late_arrival", "version": 3, "previous": 2, "by": "admin", "why": body["why"]}


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        (b"{", 422, "not JSON"),
        (b"", 422, "not JSON"),
        (b"\xff\xfe", 422, "not JSON"),
        (b"[]", 422, "valid"),
        (b"{}", 422, "required"),
        (b'{"version": 3, "why": ""}', 422, "at least 1"),
        (b'{"version": 3, "why": "better", "wy": 1}', 422, "not permitted"),
        (b'{"version": 0, "why": "better"}', 422, "greater than or equal to 1"),
        (b'{"version": 3, "why": "' + b"x" * (5 << 20) + b'"}', 413, "larger than"),
    ],
)
def test_a_bad_body_is_explained(faces: Any, body: bytes, status: int, what: str) -> None:
    answer = faces.program().post("/api/v1/models/late_arrival/promote", content=body)
    assert answer.status_code == status
    assert what in answer.json()["what"], answer.json()
    assert set(answer.json()) == {"error", "what", "where", "hint", "retryable"}
    assert not faces.platform.promotions


def test_a_body_without_a_length_is_cut_off_too(faces: Any) -> None:
    def pieces() -> Any:
        for _ in range(100):
            yield b"x" * (1 << 16)

    answer = faces.program().post("/api/v1/models/late_arrival/promote", content=pieces())
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "status", "hint"),
    [
        ("/tables/fligths", 404, "did you mean 'flights'"),
        ("/models/late_arival", 404, "did you mean 'late_arrival'"),
        ("/models/late_arrival/versions/9", 404, "versions: 1, 2, 3"),
        ("/models/late_arrival/versions/x", 404, ""),
        ("/predictions/p_nothing", 404, ""),
        ("/predictions?limit=0", 422, ""),
        ("/predictions?limit=x", 422, ""),
        ("/predictions?modle=x", 422, "allowed: model, limit"),
        ("/overview?x=1", 422, "takes none"),
        ("/audit?before=99999999999999999999999", 422, ""),
    ],
)
def test_what_is_not_there_is_said_so(faces: Any, path: str, status: int, hint: str) -> None:
    answer = faces.program().get(PREFIX + path)
    assert answer.status_code == status, answer.text
    assert hint in answer.json()["hint"]


def test_a_method_that_is_not_possible_is_said_so(faces: Any) -> None:
    answer = faces.program().post("/api/v1/overview")
    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert "not possible" in answer.json()["what"]


def test_an_error_that_nobody_foresaw_tells_nothing_of_the_inside(faces: Any) -> None:
    faces.platform.champion = 77  # the example platform has no such version, and breaks in its own way
    faces.platform._version = None
    answer = faces.program().get("/api/v1/overview")
    assert answer.status_code == 500
    assert answer.json()["hint"] == "the details are in .millpond/logs/server.log"
    assert "NoneType" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = faces.browser().get("/")
    assert (page.status_code, "Something went wrong" in page.text) == (500, True)


def test_the_audit_log_is_read_and_verified(faces: Any) -> None:
    client = faces.program()
    faces.access.audit.append("admin", "promote", "late_arrival/3", "better")
    entries = client.get("/api/v1/audit").json()
    assert [entry["action"] for entry in entries] == ["promote", "issue token", "create identity"]
    assert client.get("/api/v1/audit", params={"before": 2, "limit": 5}).json()[0]["sequence"] == 1
    assert client.get("/api/v1/audit/verify").json()["intact"] is True


def test_the_description_is_of_what_is_served(faces: Any) -> None:
    document = faces.program().get("/api/v1/openapi.json").json()
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    served = {
        (method, re.sub(r":int", "", route.path))
        for route in faces.app.routes
        if route.path.startswith(PREFIX) and not route.path.endswith("openapi.json")
        for method in route.methods - {"HEAD"}
    }
    assert described == served
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def disagreements(found: Any, schema: dict[str, Any], schemas: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Where a document is not as a JSON schema says; for the words that the description uses."""
    if "$ref" in schema:
        yield from disagreements(found, schemas[schema["$ref"].rpartition("/")[2]], schemas, at)
    for option in [schema["anyOf"]] if "anyOf" in schema else []:
        if all(list(disagreements(found, each, schemas, at)) for each in option):
            yield f"{at}: {found!r} is none of {option}"
    if "type" in schema and not isinstance(found, TYPES[schema["type"]]):
        yield f"{at}: {found!r} is no {schema['type']}"
    if "enum" in schema and found not in schema["enum"]:
        yield f"{at}: {found!r} is not in {schema['enum']}"
    if isinstance(found, dict) and "properties" in schema:
        if set(found) != set(schema["properties"]):
            yield f"{at}: has {sorted(found)}, not {sorted(schema['properties'])}"
        for name in set(found) & set(schema["properties"]):
            yield from disagreements(found[name], schema["properties"][name], schemas, f"{at}.{name}")
    if isinstance(found, dict) and isinstance(schema.get("additionalProperties"), dict):
        for name, value in found.items():
            yield from disagreements(value, schema["additionalProperties"], schemas, f"{at}.{name}")
    if isinstance(found, list) and isinstance(schema.get("items"), dict):
        for number, value in enumerate(found):
            yield from disagreements(value, schema["items"], schemas, f"{at}[{number}]")


def test_answers_are_as_described(faces: Any) -> None:
    """Every GET and POST against the schema that the description gives for it."""
    client = faces.program()
    document = client.get("/api/v1/openapi.json").json()
    [made] = predicted(faces, {"origin": "JFK"})
    filled = {"table": "flights", "view": "airport_weather", "model": "late_arrival", "number": "3", "id": made}
    bodies: dict[str, Any] = {"promote": {"version": 3, "why": "better"}, "skew": {}, "events": {"events": [{"x": 1}]}}
    bodies |= {"releases": {"version": 3, "why": "try it"}}
    bodies |= {move: {"why": "seen enough"} for move in ("advance", "rollback", "abort")}
    client.post("/api/v1/models/late_arrival/skew", json={})
    checked = 0
    del document["paths"][PREDICT]  # it is the worker's
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            address = re.sub(r"\{(\w+)\}", lambda found: filled[found[1]], path)
            answer = client.request(method.upper(), address, json=bodies.get(path.rpartition("/")[2]))
            assert answer.status_code == 200, f"{method} {address}: {answer.text}"
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert list(disagreements(answer.json(), schema, document["components"]["schemas"])) == []
            checked += 1
    assert checked == 21


def test_metrics_and_health(faces: Any) -> None:
    client = faces.program()
    client.get("/api/v1/overview")
    text = client.get("/metrics").text
    assert 'millpond_server_requests_total{area="api",method="GET",status="200"} 1' in text
    assert "millpond_server_serving_up 0" in text
    assert faces.client().get("/healthz").json() == {"status": "ok", "serving": "starting", "mlflow": "starting"}
    assert client.get("/api/v1/status").json()["version"] == "1.2.3"
