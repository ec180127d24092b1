"""The quick reads equal the one read of features/merge.py, value by value."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.kernel import Kernel
from features.merge import read_rows
from features.plan import ViewPlan
from schemas.row import EMPTY_TILE, HEADER, NO_EVENT, WORD_BYTES
from serving.quick import Shape, is_quick
from tests.unit.serving.online import log_table, us
from tests.unit.serving.shop import definitions
from tests.unit.serving.test_read import NOW, order

SHOP = definitions()
KERNEL = Kernel()
GENERATION = b"12345678"
CUSTOMERS = ("ann", "bob", "cleo", "dan")

AMOUNTS = st.one_of(st.none(), st.floats(-1e9, 1e9), st.sampled_from([0.0, 2.0**76, -(2.0**76), 2.0**-84, 0.1, 1e300]))
EVENTS = st.lists(
    st.builds(
        lambda who, minutes, amount, items, paid: order(who, minutes, amount, items=items, paid=paid),
        st.sampled_from(CUSTOMERS[:3]),
        st.one_of(st.floats(0, 70), st.floats(0, 60 * 40), st.sampled_from([0.0, 60.0, 24 * 60.0])),
        AMOUNTS,
        st.integers(-(2**62), 2**62),
        st.booleans(),
    ),
    max_size=30,
)


def online_rows(plan: ViewPlan, batches: list[list[dict[str, Any]]]) -> dict[str, bytes]:
    """Rows as a worker may leave them: no heads yet, a slot for each tile of each batch."""
    slots: dict[str, list[bytes]] = {}
    newest: dict[str, int] = {}
    for batch in batches:
        deltas = KERNEL.fold(plan, [log_table(SHOP.events["Order"], batch)])
        for n, key in enumerate(deltas.keys):
            records = deltas.records[deltas.starts[n] : deltas.starts[n + 1]]
            slots.setdefault(key, []).extend(record.tobytes() for record in records)
            newest[key] = max(newest.get(key, NO_EVENT), int(deltas.newest_us[n]))
    rows = {}
    for key, records in slots.items():
        spare = b"\xff" * len(records[0])
        head = EMPTY_TILE.to_bytes(8, "little", signed=True) + bytes(len(spare) - WORD_BYTES)
        heads = head * len(plan.resolutions)
        header = HEADER.pack(GENERATION, newest[key], len(records), len(records) + 1)
        rows[key] = header + heads + b"".join(records) + spare
    return rows


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["spending", "spending", "newest"]),
    st.lists(EVENTS, min_size=1, max_size=3),
    st.lists(st.integers(1, 50 * 3_600_000_000), min_size=4, max_size=4),
    st.booleans(),
)
def test_a_shape_reads_what_read_rows_reads(
    name: str, batches: list[list[dict[str, Any]]], later: list[int], same: bool
) -> None:
    plan = SHOP.views[name]
    found = online_rows(plan, batches)
    rows = [found.get(each) for each in CUSTOMERS]
    instants = np.array([us(NOW) + (later[0] if same else each) for each in later])
    features = [feature for feature in plan.features if is_quick(plan, feature)]
    assert len(features) == len(plan.features)
    expected = read_rows(plan, rows, [GENERATION] * 4, instants, [feature.name for feature in features])
    shape = Shape(plan, features)
    generations = np.frombuffer(GENERATION * 4, np.int64)
    parsed = shape.parse(rows, generations)
    got = shape.values(parsed, instants[:1] if same else instants)
    for feature, a, b in zip(features, expected, got, strict=True):
        assert a.valid.tolist() == b.valid.tolist(), feature.name
        if feature.finish.value == "stddev":
            assert a.values[a.valid] == pytest.approx(b.values[b.valid], rel=1e-9, abs=1e-9)
        else:
            assert a.values[a.valid].tobytes() == b.values[b.valid].tobytes(), feature.name
    wanted = [NO_EVENT if row is None else HEADER.unpack_from(row)[1] for row in rows]
    assert parsed.newest_us.tolist() == wanted


def test_a_row_of_another_generation_is_absent() -> None:
    plan = SHOP.views["spending"]
    rows = online_rows(plan, [[order("ann", 5), order("bob", 5)]])
    shape = Shape(plan, plan.features)
    generations = np.frombuffer(b"another!" + GENERATION, np.int64)
    parsed = shape.parse([rows["ann"], rows["bob"]], generations)
    counts = shape.values(parsed, np.array([us(NOW + timedelta(minutes=1))]))[0]
    assert counts.values.tolist() == [0, 1]
    assert parsed.newest_us[0] == NO_EVENT
