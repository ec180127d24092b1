"""Reading events piece by piece answers as reading them at once."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from batch import chunks
from batch.chunks import Queries, read_stream
from features.kernel import Kernel
from features.merge import read_records
from features.plan import Definitions
from schemas.event import log_schema
from tests.unit.batch.conftest import START, Order, order

FEATURES = ("n_1h", "amount_1h", "mean_24h", "max_items", "last_note", "first_items")
START_US = int(np.datetime64(START, "us").astype(np.int64))


def events(seed: int, count: int) -> pa.Table:
    chance = random.Random(seed)
    rows = [
        order(chance.choice("aabcdefé~"), chance.randrange(3_000), chance.uniform(-9, 9), note=chance.choice("xyz"))
        | {"order_id": None, "kafka_partition": 0, "kafka_offset": n, "kafka_timestamp": START, "kafka_key": None}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, log_schema(Order.spec()))


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_pieces_make_no_difference(
    rows: int, seed: int, definitions: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", rows)
    plan = definitions.views["orders"]
    table = events(seed, 300)
    chance = np.random.default_rng(seed)
    keys = pa.array([None if k == "0" else k for k in chance.choice(list("abcdefé~z!0"), 200)], pa.string())
    instants = START_US + chance.integers(0, 3_000, 200) * 60_000_000
    kernel = Kernel()
    try:
        whole = read_records(plan, kernel.records(plan, [table], keys.unique()), keys, instants, FEATURES)
        queries = Queries(keys, instants)
        batches = kernel.record_batches(plan, [table], queries.entities, 64)
        parts = read_stream(
            plan,
            batches,
            queries,
            lambda records, keys, instants, _: read_records(plan, records, keys, instants, FEATURES),
            len(FEATURES),
            threads=2,
        )
    finally:
        kernel.close()
    assert [each.to_list() for each in parts] == [each.to_list() for each in whole]
