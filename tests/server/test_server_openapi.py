"""Schemathesis sends what the OpenAPI description allows, and what it forbids, and compares the answers with it."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode
from serving import FakeDetector, FakeExplainer, running

OPERATIONS = [
    ("POST", "/v1/detect"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/model"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(FakeDetector(), FakeExplainer()) as client:
        yield client


@pytest.fixture(scope="module")
def api(client: httpx.Client) -> schemathesis.BaseSchema:
    refusals = [400, 413, 415, 422]  # too many files are too large a request here, which is not among the defaults
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": refusals}}})
    return schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", config=config)


def test_every_operation_is_listed(api: schemathesis.BaseSchema) -> None:
    found = {result.ok().label for result in api.get_all_operations()}
    assert found == {f"{method} {path}" for method, path in OPERATIONS}


def test_a_foreign_host_is_described_wherever_it_is_refused(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in OPERATIONS:
        assert client.request(method, path, headers={"Host": "foreign.example"}).status_code == 403
        assert "403" in paths[path][method.lower()]["responses"]


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [
        (*operation, GenerationMode.NEGATIVE) for operation in OPERATIONS[:2]
    ],  # the others take nothing that could be wrong
)
def test_answers_keep_to_the_description(
    api: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    # Random bytes are a valid upload for the description, yet no picture: 422 is right for them.
    excluded = [CHECKS.get_one("positive_data_acceptance")] if method == "POST" else []

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def keeps(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=excluded)

    keeps()
