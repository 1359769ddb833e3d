"""A running server keeps to its two OpenAPI documents, whatever it is sent: Schemathesis makes the requests.

No error inside, no status or content type that is not described, no answer that is not as its schema says. The same
requests each time.
"""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: Measuring skew reads the lake, and a release changes what answers: fewer of them.
SLOW = ("/skew", "/releases", "/promote", "/predictions/", "/versions/{number}")
#: What is there, by the name of its place in a path.
THERE = {"model": "returned", "table": "orders", "view": "habits", "number": 1, "version": "1"}
PLACE = re.compile(r"\{(\w+)\}")


@pytest.fixture(scope="module")
def server(lgb_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    project = type(lgb_shop)(tmp_path_factory.mktemp("schema") / "shop")
    shutil.copytree(lgb_shop.folder, project.folder)
    with project.serve() as server:
        yield server


@pytest.mark.parametrize("path", ["/api/v1/openapi.json", "/v2/openapi.json"])
def test_the_server_keeps_to_its_description(server: Any, path: str) -> None:
    document = server.client.get(path).json()
    schema = schemathesis.openapi.from_dict(document)
    rows = [{"customer_id": "c1", "category": "books", "amount": 1.5}]
    [predicted] = server.client.post("/api/v1/models/returned/predict", json={"rows": rows}).json()["predictions"]
    there = {**THERE, "id": predicted["id"]}
    operations = [each.ok() for each in schema.get_all_operations()]
    operations.sort(key=lambda each: not each.path.endswith("/unload"))  # first, and loaded again by the next ones
    failures: dict[str, str] = {}
    answered: dict[str, set[int]] = {}
    for operation in operations:
        answered[operation.label] = statuses = set()
        for mode in GenerationMode:
            told = ask(server, operation, mode, there, statuses)
            if told:
                failures[f"{operation.label} ({mode.value})"] = told
    assert not failures, "\n\n".join(f"{name}: {told}" for name, told in failures.items())
    assert len(answered) == sum(len(methods) for methods in document["paths"].values())
    unreached = {name for name, found in answered.items() if name.startswith("GET") and 200 not in found}
    assert unreached <= {"GET /api/v1/models/{model}/skew"}, answered  # of which nothing was measured


def ask(server: Any, operation: Any, mode: GenerationMode, there: dict[str, Any], statuses: set[int]) -> str:
    """Requests as the document has them, of what is there; or requests as it has them not. What was wrong, or ""."""
    few = 4 if any(part in operation.path for part in SLOW) else 12
    places = {name: there[name] for name in PLACE.findall(operation.path)}
    fixed = {"path_parameters": places} if mode is GenerationMode.POSITIVE and places else {}
    tried = False

    @seed(1)
    @settings(max_examples=few, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode, **fixed))
    def each(case: Any) -> None:
        nonlocal tried
        tried = True
        response = case.call(base_url=server.url, headers=server.authorization, timeout=60)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    try:
        each()
    except Unsatisfiable:
        return "" if not tried else "nothing was asked"  # where nothing that it takes can be wrong
    except Exception as error:
        return str(error)[:1500]
    return ""
