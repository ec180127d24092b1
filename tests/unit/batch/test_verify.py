"""The proof over a real warehouse: vectors made by plain Python from the events below their checkpoints."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest

from batch.append import Piece, append_once
from batch.catalog import load, open_catalog
from batch.settings import BatchSettings
from batch.sql import query
from batch.tables import BROKER_TIME, ensure_table, served_table
from batch.verify import VerifyReport, verify
from features.plan import Definitions
from features.served import served_schema
from tests.unit.batch.conftest import START, Land, Order, order

SERVICE = "plain"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def floor(instant: datetime, hop: timedelta) -> datetime:
    return datetime(1970, 1, 1) + (instant - datetime(1970, 1, 1)) // hop * hop


def vector(events: list[dict[str, Any]], shop: str, instant: datetime, below: dict[int, int]) -> dict[str, Any]:
    """What view `orders` answers from the events below these offsets."""
    seen = [
        e
        for e in events
        if e["shop"] == shop
        and e["amount"] is not None
        and e["at"] < instant
        and e["offset"] < below.get(e["partition"], 0)
    ]
    seen.sort(key=lambda e: (e["at"], e["partition"], e["offset"]))
    hour = [e for e in seen if e["at"] >= floor(instant - HOUR, timedelta(minutes=5))]
    day = [e for e in seen if e["at"] >= floor(instant - DAY, timedelta(hours=1))]
    notes = [e["note"] for e in seen if e["note"] is not None]
    mean = float(sum(Fraction(e["amount"]) for e in day)) / len(day) if day else None
    exact_mean = sum(Fraction(e["amount"]) for e in day) / len(day) if day else None
    spread = float(sum((Fraction(e["amount"]) - exact_mean) ** 2 for e in day) / len(day)) ** 0.5 if day else None
    return {
        "shop": shop,
        "instant": instant,
        "orders__n_1h": len(hour),
        "orders__amount_1h": float(sum(Fraction(e["amount"]) for e in hour)) if hour else None,
        "orders__mean_24h": mean,
        "orders__max_items": max((e["items"] for e in day), default=None),
        "orders__last_note": notes[-1] if notes else None,
        "orders__first_items": seen[0]["items"] if seen else None,
        "orders__spread_24h": spread,
        "checkpoints": json.dumps({"orders": [[0, p, o] for p, o in below.items()]}),
    }


class Served:
    """The table of served vectors."""

    def __init__(self, definitions: Definitions, settings: BatchSettings) -> None:
        self.schema = served_schema(definitions, definitions.services[SERVICE])
        self.fingerprint = definitions.views["orders"].fingerprint
        self.table = ensure_table(open_catalog(settings), served_table(SERVICE), self.schema, BROKER_TIME)
        self.next = 0

    def log(self, vectors: list[dict[str, Any]]) -> None:
        rows = []
        for each in vectors:
            base = {
                "fingerprints": json.dumps({"orders": self.fingerprint}),
                "kafka_partition": 0,
                "kafka_offset": self.next,
                "kafka_timestamp": each["instant"],
            }
            rows.append(base | each)
            self.next += 1
        ends = {0: self.next}
        append_once(self.table, Piece(f"served.{SERVICE}", "t", pa.Table.from_pylist(rows, self.schema), {}, ends))


@pytest.fixture
def served(definitions: Definitions, settings: BatchSettings) -> Served:
    return Served(definitions, settings)


def random_events(seed: int, count: int = 400) -> list[dict[str, Any]]:
    """Events of three shops in two partitions, far out of order, with ties and nulls."""
    chance = random.Random(seed)
    offsets = {0: 0, 1: 0}
    events = []
    for number in range(count):
        partition = chance.randrange(2)
        minutes = max(0.0, number * 5 + chance.choice([0, 0, -3, -120, -1500]))
        event = order(
            chance.choice("abc"),
            minutes,
            chance.choice([None, chance.uniform(-1e6, 1e6), 0.1, 3.0]),
            items=chance.randrange(9),
            note=chance.choice([None, "x", "y"]),
        )
        events.append(event | {"partition": partition, "offset": offsets[partition]})
        offsets[partition] += 1
    return events


@pytest.mark.parametrize("seed", range(3))
def test_vectors_equal_the_events_below_their_checkpoints(
    seed: int, definitions: Definitions, settings: BatchSettings, land: Land, served: Served
) -> None:
    events = random_events(seed)
    land(Order, events)
    chance = random.Random(seed)
    vectors = []
    for _ in range(300):
        below = {partition: chance.randrange(200) for partition in chance.sample([0, 1], chance.choice([1, 2, 2]))}
        below = {p: min(o, max(e["offset"] for e in events if e["partition"] == p) + 1) for p, o in below.items()}
        instant = START + timedelta(minutes=chance.randrange(2_500))
        vectors.append(vector(events, chance.choice("abcd"), instant, below))
    served.log(vectors)
    report = verify(definitions, SERVICE, settings)
    assert (report.compared, report.equal, report.pending, report.defects) == (300, 300, 0, 0)
    assert report.known_now_equal < 300
    assert report.within_tolerance == ["orders__spread_24h"]


def test_a_wrong_value_is_a_defect(
    definitions: Definitions, settings: BatchSettings, land: Land, served: Served
) -> None:
    events = [
        e | {"partition": 0, "offset": n}
        for n, e in enumerate([order("a", 0, 0.1, note=None), order("a", 1, 0.2, note=None)])
    ]
    land(Order, events)
    instant = START + timedelta(minutes=5)
    good = vector(events, "a", instant, {0: 2})
    one_bit_off = good | {"orders__amount_1h": 0.3}
    assert good["orders__amount_1h"] == 0.30000000000000004
    served.log([good, one_bit_off, good | {"orders__last_note": "?"}])
    report = verify(definitions, SERVICE, settings)
    assert (report.compared, report.equal, report.defects) == (3, 1, 2)
    assert {(e.feature, e.served, e.computed) for e in report.examples} == {
        ("orders__amount_1h", 0.3, 0.30000000000000004),
        ("orders__last_note", "?", None),
    }
    rows = query("SELECT cause, feature, keys, served, computed FROM verified.plain ORDER BY feature", settings)
    assert rows.to_pylist()[1] == {
        "cause": "defect",
        "feature": "orders__last_note",
        "keys": '{"shop":"a"}',
        "served": '"?"',
        "computed": None,
    }
    assert query("SELECT equal, values_defect FROM verified.runs", settings).to_pylist() == [
        {"equal": 1, "values_defect": 2}
    ]


def test_differences_from_what_is_known_now_are_lag_or_lateness(
    definitions: Definitions, settings: BatchSettings, land: Land, served: Served
) -> None:
    late = START + timedelta(minutes=30)
    events = [
        order("a", 0, 1.0, note=None),
        order("a", 1, 2.0, note=None),
        order("a", 2, 4.0, note=None, stored=late),
    ]
    events = [event | {"partition": 0, "offset": offset} for offset, event in enumerate(events)]
    land(Order, events)
    instant = START + timedelta(minutes=10)
    served.log([vector(events, "a", instant, {0: 1}), vector(events, "a", instant, {0: 2})])
    report = verify(definitions, SERVICE, settings)
    assert (report.equal, report.known_now_equal) == (2, 0)
    causes = {(e.offset, e.feature, e.cause.value) for e in report.examples}
    # The first had not folded what had arrived; the second only misses what came afterwards.
    assert (0, "orders__n_1h", "lag") in causes
    assert (1, "orders__n_1h", "late") in causes
    assert not report.defects


def test_vectors_ahead_of_the_lander_wait_and_other_meanings_are_not_compared(
    definitions: Definitions, settings: BatchSettings, land: Land, served: Served
) -> None:
    events = [order("a", 0, 1.0, note=None) | {"partition": 0, "offset": 0}]
    land(Order, events)
    instant = START + timedelta(minutes=10)
    good = vector(events, "a", instant, {0: 1})
    ahead = good | {"checkpoints": json.dumps({"orders": [[0, 0, 2]]})}
    old = good | {"fingerprints": json.dumps({"orders": "0" * 32}), "orders__n_1h": 99}
    served.log([good, ahead, old])
    report = verify(definitions, SERVICE, settings)
    assert (report.compared, report.equal, report.pending) == (1, 1, 1)
    assert report.by_cause == {"definition": 7}


def test_nothing_served(definitions: Definitions, settings: BatchSettings) -> None:
    assert verify(definitions, SERVICE, settings) == VerifyReport(SERVICE, within_tolerance=["orders__spread_24h"])
    assert load(open_catalog(settings), ("verified", "runs")).scan().count() == 1


def test_a_feature_that_the_service_did_not_have_yet_is_no_defect(
    definitions: Definitions, settings: BatchSettings, land: Land, served: Served
) -> None:
    events = [order("a", 0, 1.0, note=None) | {"partition": 0, "offset": 0}]
    land(Order, events)
    good = vector(events, "a", START + timedelta(minutes=10), {0: 1})
    features = [name for name in good if name.startswith("orders__") and name != "orders__n_1h"]
    served.log([good, good | {"features": json.dumps(features), "orders__n_1h": None}])
    report = verify(definitions, SERVICE, settings)
    assert (report.compared, report.equal, report.defects) == (2, 2, 0)
    assert report.by_cause == {"definition": 1}
