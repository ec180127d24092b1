"""Few events are folded in NumPy, many in SQL: to the same bit."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import Count, Entity, FeatureView, Max, Mean, Min, Sum, few
from features.deltas import Deltas
from features.kernel import Kernel
from features.planner import compile_definitions
from schemas.event import Event, log_schema


class Tick(Event, topic="ticks", time="at", key=["k"]):
    """All that a few events can be made of."""

    at: datetime
    k: str | None
    i: int | None
    x: float | None


VIEW = FeatureView(
    "ticks",
    entity=Entity("k"),
    source=Tick,
    where="x IS NULL OR x < 900",
    shards=4,
    features={
        "n": Count(over="1h"),
        "n_x": Count("x", over="24h"),
        "sum_i": Sum("i", over="1h"),
        "sum_x": Sum("x"),
        "mean_x": Mean("x / (i - 3)", over="7d", where="i > 1"),
        "min_i": Min("i", over="1h"),
        "max_i": Max("i"),
        "min_x": Min("x", over="24h"),
        "max_x": Max("x", over="24h"),
        "last_at": Max('"at"', over="24h"),
        "ever": Max("i > 5"),
    },
)
PLAN = compile_definitions("p", [VIEW]).views["ticks"]
INSTANTS = st.datetimes(datetime(1960, 1, 1), datetime(2026, 1, 1)) | st.datetimes(
    datetime(2025, 12, 31), datetime(2026, 1, 1)
)
EVENTS = st.lists(
    st.tuples(
        INSTANTS,
        st.sampled_from(["a", "b", "ä", "", None]),
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


@settings(max_examples=100, deadline=None)
@given(events=EVENTS)
def test_few_and_many_give_the_same_bits(
    kernel: Kernel, events: list[tuple[datetime, str | None, int | None, float | None]]
) -> None:
    """In NumPy, by one query, and by two: as it is with floors."""
    assert few.is_for(PLAN)
    rows = [(*event, 0, n, datetime.now(UTC).replace(tzinfo=None), None) for n, event in enumerate(events)]
    columns = list(zip(*rows, strict=True)) or [()] * 8
    schema = log_schema(Tick.spec())
    table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    by_two = kernel.fold(PLAN, [table], [{0: np.zeros(4, np.int64)}])
    for deltas in (kernel.fold(PLAN, [table]), _as_if_many(kernel, table)):
        assert deltas.keys == by_two.keys
        assert deltas.counts == by_two.counts
        for name in ("shards", "starts", "newest_us", "records"):
            np.testing.assert_array_equal(getattr(deltas, name), getattr(by_two, name))
    assert (np.diff(by_two.shards) >= 0).all()
    assert all(a < b for a, b in itertools.pairwise(by_two.starts))


def _as_if_many(kernel: Kernel, table: pa.Table) -> Deltas:
    before, few.EVENTS_MAX = few.EVENTS_MAX, -1
    try:
        return kernel.fold(PLAN, [table])
    finally:
        few.EVENTS_MAX = before
