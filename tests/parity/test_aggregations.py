"""Every aggregation over generated histories: offline = online = oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from features.kernel import Kernel
from tests.parity.compare import History, check
from tests.parity.declared import WHERES, Feature, Over, feature, view, windows
from tests.parity.world import histories

# Generated cases by the hundred: a busy machine may take its time.
pytestmark = pytest.mark.timeout(1_200)

MINUTE_US = 60_000_000
ROOM_1, HAS_X = WHERES
near_a_mean = st.builds(
    lambda mean, x: mean + x, st.sampled_from([0.0, -7.0, 1e5]), st.sampled_from([-3.0, -0.5, 0.1, 2.0])
)
"""Inputs for features whose accuracy is stated relative to the inputs' spread."""
small = st.integers(-2, 3)
"""Inputs that meet again."""


class Case(NamedTuple):
    """Features that are declared together, and the columns that their events fill."""

    columns: str
    makes: list[Callable[[Over], Feature]]
    values: dict[str, st.SearchStrategy[Any]] | None = None


def of(kind: str, column: str | None = None, **options: Any) -> Callable[[Over], Feature]:
    return lambda over: feature(kind, column, over, **options)


CASES: dict[str, Case] = {
    "count": Case("x room", [of("Count"), of("Count", "x"), of("Count", where=ROOM_1), of("Count", "x", where=ROOM_1)]),
    "sum": Case("x n room", [of("Sum", "x"), of("Sum", "n"), of("Sum", "x", where=ROOM_1)]),
    "mean": Case("x n", [of("Mean", "x"), of("Mean", "n", where=HAS_X)]),
    "min": Case("x n day", [of("Min", column) for column in ("x", "n", "day")]),
    "max": Case("x n flag seen", [of("Max", column) for column in ("x", "n", "flag", "seen")]),
    "min_max_bytes": Case("s raw", [of(kind, column) for kind in ("Min", "Max") for column in ("s", "raw")]),
    "first": Case("x n day", [of("First", column) for column in ("x", "n", "day")]),
    "last": Case(
        "x flag seen n room", [*(of("Last", c) for c in ("x", "flag", "seen")), of("Last", "n", where=ROOM_1)]
    ),
    "first_last_bytes": Case("s raw", [of(kind, column) for kind in ("First", "Last") for column in ("s", "raw")]),
    "moments": Case(
        "x room",
        [of("Variance", "x"), of("StdDev", "x"), of("Variance", "x", where=ROOM_1)],
        {"x": near_a_mean},
    ),
    "higher_moments": Case(
        "x n", [of("Skew", "x"), of("Kurtosis", "x"), of("Skew", "n")], {"x": near_a_mean, "n": small}
    ),
    "decayed": Case(
        "x", [of("DecayedSum", "x", half_life="6h"), of("DecayedMean", "x", half_life="5m")], {"x": near_a_mean}
    ),
    "decimals": Case("price", [of(kind, "price") for kind in ("Sum", "Mean", "Min", "Max", "First", "Last")]),
    "first_k": Case("x s seen", [of("FirstK", "x", k=2), of("FirstK", "s", k=3), of("FirstK", "seen", k=1)]),
    "last_k": Case("x s n room", [of("LastK", "x", k=3), of("LastK", "s", k=2), of("LastK", "n", k=4, where=ROOM_1)]),
    "last_k_distinct": Case(
        "n s", [of("LastK", "n", k=2, distinct=True), of("LastK", "s", k=3, distinct=True)], {"n": small}
    ),
    "top_k": Case(
        "x n s price", [of("TopK", column, k=k) for column, k in (("x", 3), ("n", 2), ("s", 3), ("price", 2))]
    ),
    "bottom_k": Case("x n raw day", [of("BottomK", column, k=2) for column in ("x", "n", "raw", "day")], {"n": small}),
    "most_frequent": Case("n s", [of("MostFrequent", "n", k=2), of("MostFrequent", "s", k=1)], {"n": small}),
    "count_distinct": Case(
        "n s x flag",
        [of("CountDistinct", c, limit=limit) for c, limit in (("n", 2), ("s", 10_000), ("x", 3), ("flag", 9))],
    ),
    "approx_count_distinct": Case("n s x", [of("ApproxCountDistinct", column) for column in ("n", "s", "x")]),
    "quantile": Case("x n", [of("Quantile", "x", p=0.9), of("Quantile", "x", p=0.0), of("Quantile", "n", p=0.5)]),
    "histogram": Case(
        "x n price",
        [
            of("Histogram", "x", edges=[-1.0, 0.0, 0.5, 1e300]),
            of("Histogram", "n", edges=[-0.5, 1.0, 2.0**63]),
            of("Histogram", "price", edges=[0.001, 2.5]),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_offline_and_online_are_the_oracle(name: str, kernel: Kernel, client: redis.Redis, cases: Counter[str]) -> None:
    case = CASES[name]

    @given(
        overs=st.lists(windows, min_size=2, max_size=2, unique=True),
        history=histories(case.columns.split(), case.values),
        batches=st.lists(st.integers(1, 8), max_size=2),
        ahead=st.lists(
            st.sampled_from([1, 7, MINUTE_US, 5 * MINUTE_US, 60 * MINUTE_US, 26 * 60 * MINUTE_US]), min_size=2
        ),
    )
    def run(overs: list[Over], history: History, batches: list[int], ahead: list[int]) -> None:
        chosen = {f"f{i}_{j}": make(over) for i, make in enumerate(case.makes) for j, over in enumerate(overs)}
        check(kernel, client, view(chosen).plan, chosen, history, batches, ahead, cases)

    run()
