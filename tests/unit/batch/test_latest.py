"""Latest values looked up where they lie are those that the one read finds in sorted events."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch import latest
from batch.settings import BatchSettings
from batch.training import training_set
from features import Entity, FeatureService, LatestView
from features.planner import compile_definitions
from schemas.event import Event

YEAR_US = 365 * 86_400_000_000


class Fact(Event, path="facts_*.parquet", time="at", key=["user"]):
    at: datetime
    user: str | None
    number: int | None
    ratio: float | None
    text: str | None
    flag: bool | None


@pytest.mark.parametrize("spread", [40, 10 * YEAR_US], ids=["many ties", "over ten years"])
def test_the_same_bits_as_from_sorted_events(spread: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(5)
    monkeypatch.chdir(tmp_path)
    for part in range(2):
        facts = chance.integers(0, spread, 400)
        columns = {
            "at": pa.array(facts).cast(pa.timestamp("us")),
            "user": pa.array([None if n == 0 else f"u{n}" for n in chance.integers(0, 12, 400)]),
            "number": pa.array(chance.integers(-9, 9, 400), mask=chance.random(400) < 0.2),
            "ratio": pa.array(chance.normal(0, 1, 400), mask=chance.random(400) < 0.2),
            "text": pa.array([f"t{n}" for n in chance.integers(0, 99, 400)], mask=chance.random(400) < 0.2),
            "flag": pa.array(chance.random(400) < 0.5),
        }
        pq.write_table(pa.table(columns), tmp_path / f"facts_{part}.parquet")
    view = LatestView("facts", entity=Entity("user"), source=Fact, ttl="3650d", where="number IS NULL OR number > -8")
    definitions = compile_definitions("p", [view, FeatureService("all", [view])])
    asked = {
        "user": pa.array([None if n == 0 else f"u{n}" for n in chance.integers(0, 14, 300)]),
        "event_timestamp": pa.array(chance.integers(-2, spread + 2, 300)).cast(pa.timestamp("us")),
    }
    settings = BatchSettings(home=tmp_path / "home")
    found = training_set(definitions, "all", pa.table(asked), settings)
    monkeypatch.setattr(latest, "EVENTS_MAX", 0)
    assert found.equals(training_set(definitions, "all", pa.table(asked), settings))
    assert 0 < found["facts__text"].null_count < 300


def test_too_many_entities_over_too_long_a_time_are_ranked() -> None:
    times = np.array([7, 1 << 61, 3, 5, 1 << 60])
    table = pa.table(
        {"key": pa.array([1, 1, 0, 7, 7], pa.int32()), "t": times, "position": [0] * 5, "offset": range(5)}
    )
    instants = latest._Instants(table)
    asked = [(0, 3), (0, 4), (1, 8), (1, 1 << 62), (7, 6), (7, 5), (3, 9)]
    found, newest = instants.newest_before(*(np.array(column) for column in zip(*asked, strict=True)))
    assert [int(n) if ok else None for ok, n in zip(found, newest, strict=True)] == [None, 3, 7, 1 << 61, 5, None, None]
