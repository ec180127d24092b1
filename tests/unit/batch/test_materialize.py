"""Values at regular instants: which rows there are, and that running again changes nothing."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from batch.materialize import MaterializeReport, materialize
from batch.settings import BatchSettings
from batch.sql import Session, query
from batch.training import training_set
from features.plan import Definitions
from schemas.errors import RequestError
from tests.unit.batch.conftest import START, Land, Order, Visit, asked, order, visit

MINUTE_US = 60_000_000


def run(
    definitions: Definitions, settings: BatchSettings, view: str, minutes: tuple[float, float, int]
) -> MaterializeReport:
    first, last, every = minutes
    return materialize(
        definitions,
        view,
        settings,
        start=START + timedelta(minutes=first),
        end=START + timedelta(minutes=last),
        every_us=every * MINUTE_US,
    )


def test_every_entity_that_was_seen_at_every_instant(
    definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    land(Order, [order("a", 0, 1.0), order("b", 15, 2.0), order("a", 25, 4.0)])
    assert run(definitions, settings, "orders", (0, 30, 10)) == MaterializeReport(0, 4, 5)
    rows = query("SELECT instant, shop, amount_1h FROM features.orders ORDER BY ALL", settings).to_pylist()
    assert [((r["instant"] - START) // timedelta(minutes=1), r["shop"], r["amount_1h"]) for r in rows] == [
        (10, "a", 1.0),
        (20, "a", 1.0),
        (20, "b", 2.0),
        (30, "a", 5.0),
        (30, "b", 2.0),
    ]
    trained = training_set(definitions, "plain", asked(["a", "b"], [20, 20]), settings)
    assert trained["orders__amount_1h"].to_pylist() == [1.0, 2.0]


def test_running_again_goes_on_where_it_stopped(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.0)])
    assert run(definitions, settings, "orders", (10, 30, 10)).written == 3
    assert run(definitions, settings, "orders", (10, 50, 10)) == MaterializeReport(3, 2, 2)
    assert run(definitions, settings, "orders", (10, 50, 10)) == MaterializeReport(5, 0, 0)
    counts = query("SELECT instant, count(*) AS n FROM features.orders GROUP BY 1", settings)
    assert counts["n"].to_pylist() == [1] * 5


def test_composite_keys(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Visit, [visit("a:1", 1, 0), visit("a", 12, 0), visit("é", -3, 0)])
    run(definitions, settings, "visits", (10, 10, 10))
    rows = query("SELECT shop, floor, n FROM features.visits ORDER BY ALL", settings).to_pylist()
    assert [(row["shop"], row["floor"], row["n"]) for row in rows] == [("a", 12, 1), ("a:1", 1, 1), ("é", -3, 1)]


def test_a_changed_meaning_begins_anew(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.0)])
    run(definitions, settings, "orders", (10, 10, 10))
    changed = msgspec.structs.replace(definitions.views["orders"], fingerprint="f" * 32)
    other = msgspec.structs.replace(definitions, views=definitions.views | {"orders": changed})
    assert run(other, settings, "orders", (10, 10, 10)).written == 1
    old = definitions.views["orders"].fingerprint[:8]
    assert f"features.orders__{old}" in Session(settings).tables()


def test_what_can_not_be_meant(definitions: Definitions, settings: BatchSettings) -> None:
    with pytest.raises(RequestError, match="there are: orders"):
        run(definitions, settings, "ordres", (0, 1, 1))
    with pytest.raises(RequestError, match="not after"):
        run(definitions, settings, "orders", (2, 1, 1))
    with pytest.raises(RequestError, match="instants at once"):
        run(definitions, settings, "orders", (0, 2e6, 1))
