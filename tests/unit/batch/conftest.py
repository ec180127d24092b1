"""An event log in a warehouse of its own, written as the lander writes it, and definitions over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.append import Piece, append_once
from batch.catalog import open_catalog
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, ensure_table, events_table
from features import (
    Count,
    DerivedView,
    Entity,
    FeatureService,
    FeatureView,
    First,
    Last,
    Max,
    Mean,
    Request,
    StdDev,
    Sum,
)
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event, log_schema

START = datetime(2024, 3, 1)


class Order(Event, topic="orders", time="at", key=["shop"], id="order_id", dedupe_within="1h"):
    """An order in a shop."""

    at: datetime
    shop: str
    order_id: str | None
    amount: float | None
    items: int
    note: str | None


class Visit(Event, topic="visits", time="at", key=["shop", "floor"]):
    """A visit on a floor of a shop."""

    at: datetime
    shop: str
    floor: int


def project() -> Definitions:
    shop = Entity("shop")
    floor = Entity("floor")
    orders = FeatureView(
        "orders",
        entity=shop,
        source=Order,
        where="amount IS NOT NULL",
        features={
            "n_1h": Count(over="1h"),
            "amount_1h": Sum("amount", over="1h"),
            "mean_24h": Mean("amount", over="24h"),
            "max_items": Max("items", over="24h"),
            "last_note": Last("note"),
            "first_items": First("items"),
            "spread_24h": StdDev("amount", over="24h"),
        },
    )
    visits = FeatureView(
        "visits", entities=[shop, floor], source=Visit, features={"n_1h": Count(over="1h"), "n": Count()}
    )
    ratio = DerivedView(
        "ratio",
        inputs=[orders, visits, Request(budget=float)],
        features={
            "per_visit": "orders.amount_1h / nullif(visits.n_1h, 0)",
            "share": "orders.amount_1h / budget",
        },
    )
    service = FeatureService("shopping", [orders, visits["n_1h", "n"], ratio])
    plain = FeatureService("plain", [orders])
    return compile_definitions("test", [Order, Visit, orders, visits, ratio, service, plain])


@pytest.fixture(scope="session")
def definitions() -> Definitions:
    return project()


@pytest.fixture
def settings(tmp_path: Path) -> BatchSettings:
    return BatchSettings(home=tmp_path / "home", threads=2)


Land = Callable[..., None]


@pytest.fixture
def land(settings: BatchSettings) -> Land:
    """`land(Order, rows)` appends events to their table: dicts, with `partition` and `offset` where they matter."""
    catalog = open_catalog(settings)
    next_offset: dict[tuple[str, int], int] = {}

    def append(event: type[Event], rows: Iterable[Mapping[str, Any]]) -> None:
        spec = event.spec()
        schema = log_schema(spec)
        ends: dict[int, int] = {}
        complete = []
        for row in rows:
            partition = row.get("partition", 0)
            offset = row.get("offset", next_offset.get((spec.log_name, partition), 0))
            next_offset[spec.log_name, partition] = ends[partition] = offset + 1
            complete.append(
                {field.name: row.get(field.name) for field in schema}
                | {"kafka_partition": partition, "kafka_offset": offset}
                | {"kafka_timestamp": row.get("stored", row[spec.time]), "kafka_key": b"key"}
            )
        table = ensure_table(catalog, events_table(spec.log_name), schema, BROKER_TIME)
        append_once(table, Piece(spec.log_name, "topic", pa.Table.from_pylist(complete, schema), {}, ends))

    return append


def order(shop: str, minutes: float, amount: float | None, **more: Any) -> dict[str, Any]:
    """An order so many minutes after START."""
    return {"shop": shop, "at": START + timedelta(minutes=minutes), "amount": amount, "items": 1, **more}


def visit(shop: str, floor: int, minutes: float, **more: Any) -> dict[str, Any]:
    """A visit so many minutes after START."""
    return {"shop": shop, "floor": floor, "at": START + timedelta(minutes=minutes), **more}


def asked(shops: Sequence[str | None], minutes: Sequence[float], **more: Sequence[Any]) -> pa.Table:
    """Rows of a training set: shops and instants, in minutes after START."""
    instants = [START + timedelta(minutes=minute) for minute in minutes]
    return pa.table({"shop": pa.array(shops, pa.string()), "event_timestamp": instants} | dict(more))
