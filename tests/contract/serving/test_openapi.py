"""Whatever schemathesis makes of the OpenAPI document, right or wrong, the server answers it, and never with a 500."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

EXAMPLES = int(os.environ.get("HEADRACE_TEST_EXAMPLES", "40"))
ANSWERS = {200, 400, 404, 405, 413, 422, 429, 503}


@pytest.mark.timeout(600)
def test_no_request_is_answered_with_a_500(server_url: str) -> None:
    # The first write imports Feast, which takes seconds.
    httpx.post(f"{server_url}/push", json={"push_source_name": "none", "df": {}}, timeout=120)
    schema = schemathesis.openapi.from_url(f"{server_url}/openapi.json")
    counts: Counter[tuple[str, int]] = Counter()
    # What is generated need not be right by chance: one request that is, beside it.
    good = {"feature_service": "fresh", "entities": {"customer": ["ann"]}}
    assert httpx.post(f"{server_url}/get-online-features", json=good).status_code == 200
    for found in schema.get_all_operations():
        operation = found.ok()
        modes = [GenerationMode.POSITIVE] + [GenerationMode.NEGATIVE] * (operation.method == "post")
        for mode in modes:
            ask(operation, mode, counts)
    print({f"{path} {status}": count for (path, status), count in sorted(counts.items())})
    assert httpx.post(f"{server_url}/get-online-features", json=good).status_code == 200
    assert {path for path, _ in counts} >= {"/get-online-features", "/push", "/write-to-online-store", "/materialize"}


def ask(operation: Any, mode: GenerationMode, counts: Counter[tuple[str, int]]) -> None:
    """Sends what is generated for one operation, and looks at each answer."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        response = case.call(timeout=60)
        counts[operation.path, response.status_code] += 1
        assert response.status_code in ANSWERS
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"fact", "where", "got", "next"}

    run()
