"""The runners and stores that every test of delivery is run under; what one can't do is the table's word.

`make test` runs the default runner; `make slow` Faust and a Redis Cluster; `make spark` Spark.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from stream.capabilities import CAPABILITIES, Capability

WITHOUT_SPARK = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None,
    reason="pyspark is not installed; `make spark` installs it and runs these",
)
MARKS: dict[str, Sequence[pytest.MarkDecorator]] = {
    "confluent": [],
    "faust": [pytest.mark.slow],
    "spark": [pytest.mark.slow, pytest.mark.spark, WITHOUT_SPARK],
}
RUNNERS = [pytest.param(name, marks=MARKS[name]) for name in CAPABILITIES]


class Under(NamedTuple):
    """A runner, and where it folds to: the one Redis of the tests, or a Cluster."""

    runner: str
    cluster: bool = False


UNDER = [
    *(pytest.param(Under(name), marks=MARKS[name], id=name) for name in CAPABILITIES),
    pytest.param(Under("confluent", cluster=True), marks=[pytest.mark.slow], id="cluster"),
]


def needs(runner: str, capability: Capability) -> None:
    """Skips a test of what the runner does not promise, for the reason that its table gives."""
    if not CAPABILITIES[runner].can(capability):
        pytest.skip(f"{runner}: {CAPABILITIES[runner].lacks[capability]}")
