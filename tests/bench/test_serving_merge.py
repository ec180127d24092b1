"""What merging tiles costs when a request is read: 100 entities × 10 features over 1 h, 24 h and 7 d, all dense."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from features.kernel import Kernel
from features.merge import read_rows
from schemas.row import EMPTY_TILE, HEADER, WORD_BYTES
from serving.quick import Shape
from tests.bench.serving_data import ENTITIES, definitions, key
from tests.unit.serving.online import log_table, us

pytestmark = pytest.mark.bench

GENERATION = b"12345678"
ROUNDS = 300


def test_merging_tiles_takes_less_than_a_millisecond() -> None:
    applied = definitions("bench")
    plan = applied.views["three"]
    now = datetime.now(UTC).replace(tzinfo=None)
    times = [now - timedelta(minutes=5 * n) for n in range(12)] + [now - timedelta(hours=n) for n in range(1, 168)]
    events: list[dict[str, Any]] = [
        {"ended_at": at, "driver": key(n)} | {f"x{k}": n + k / 7 for k in range(5)}
        for at in times
        for n in range(ENTITIES)
    ]
    deltas = Kernel().fold(plan, [log_table(applied.events["Trip"], events)])
    rows: list[bytes | None] = []
    for n in range(len(deltas.keys)):
        records = deltas.records[deltas.starts[n] : deltas.starts[n + 1]].tobytes()
        width = deltas.records.shape[1] * WORD_BYTES
        heads = (EMPTY_TILE.to_bytes(8, "little", signed=True) + bytes(width - 8)) * len(plan.resolutions)
        count = len(records) // width
        rows.append(HEADER.pack(GENERATION, int(deltas.newest_us[n]), count, count) + heads + records)
    assert len(rows) == ENTITIES
    shape = Shape(plan, plan.features)
    generations = np.frombuffer(GENERATION * ENTITIES, np.int64)
    instant = np.array([us(now) + 1])
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        parsed = shape.parse(rows, generations)
        values = shape.values(parsed, instant)
        best = min(best, time.perf_counter() - started)
    names = [feature.name for feature in plan.features]
    expected = read_rows(plan, rows, [GENERATION] * ENTITIES, int(instant[0]), names)
    for a, b in zip(expected, values, strict=True):
        assert a.values[a.valid].tobytes() == b.values[b.valid].tobytes()
    tiles = parsed.records.tile_keys.size
    print(f"\n{ENTITIES} × {len(names)} over 1 h, 24 h and 7 d, {tiles:,} tiles: {best * 1e3:.2f} ms")
    assert best < 1e-3
