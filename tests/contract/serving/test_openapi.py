"""Whatever schemathesis makes of the OpenAPI document, the server answers it, and never with a 500."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402


@pytest.fixture(scope="module")
def document(server_url: str) -> Any:
    return schemathesis.openapi.from_url(f"{server_url}/openapi.json")


SCHEMA = schemathesis.pytest.from_fixture("document")
ANSWERS = {200, 400, 404, 405, 413, 422, 429, 503}


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_with_a_500(case: Any) -> None:
    response = case.call()
    case.validate_response(response, checks=[not_a_server_error])
    assert response.status_code in ANSWERS
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"fact", "where", "got", "next"}
