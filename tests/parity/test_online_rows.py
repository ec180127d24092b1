"""Kernel and readers agree on where an entity's row lives."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features import Count, Entity, FeatureView
from features.kernel import Kernel
from schemas.row import entity_key, shard_of
from tests.oracle import Event
from tests.parity.world import START_US, VALUES, Reading, log_table

pair = FeatureView(
    "pair",
    entities=[Entity("sensor"), Entity("room"), Entity("flag")],
    source=Reading,
    features={"n": Count()},
    shards=1000,
)


@given(
    keys=st.lists(
        st.tuples(st.text().filter(lambda s: "\x00" not in s), st.integers(-(2**63), 2**63 - 1), st.booleans()),
        min_size=1,
        max_size=20,
        unique=True,
    )
)
def test_keys_and_shards_are_the_same_in_sql_and_python(kernel: Kernel, keys: list[tuple[str, int, bool]]) -> None:
    rows = dict.fromkeys(VALUES)
    history = [
        (text, Event(START_US, 0, 0, i, rows | {"room": number, "flag": flag}))
        for i, (text, number, flag) in enumerate(keys)
    ]
    deltas = kernel.fold(pair.plan, [log_table(history)])
    expected = {entity_key(key): shard_of(entity_key(key), 1000) for key in keys}
    assert dict(zip(deltas.keys, deltas.shards.tolist(), strict=True)) == expected
    table = pa.table(dict(zip(("sensor", "room", "flag"), map(list, zip(*keys, strict=True)), strict=True)))
    assert kernel.entity_keys(pair.plan, table).to_pylist() == [entity_key(key) for key in keys]
