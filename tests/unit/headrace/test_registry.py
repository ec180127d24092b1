"""Everything that the language can say has a place in Feast's registry, and comes back out of it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from feast import FeatureView as FeastView
from feast import ValueType
from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig
from pydantic import Field

import features as language
from features import Entity, FeatureService, FeatureView, LatestView, Union, Window
from features.planner import compile_definitions
from headrace.definitions.registry import write_registry
from schemas import Event
from schemas.settings import ConnectionSettings


class Sale(Event, topic="sales", time="at", key=["shop"]):
    at: datetime
    shop: int
    day: date
    open: bool
    product: str
    amount: float
    cents: int
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    tags: list[str]
    vector: list[float]


class Refund(Event, topic="refunds", time="at", key=["shop"]):
    at: datetime
    shop: int
    amount: float


class Shop(Event, path="shops.parquet", time="since", key=["shop"]):
    since: datetime
    shop: int
    city: str | None


class Stock(Event, table="lake.stock", time="at", key=["product"]):
    at: datetime
    product: str
    pieces: int


AGGREGATIONS: dict[str, Any] = {
    "count": language.Count(over="1h"),
    "sum_int": language.Sum("cents", over="1h"),
    "sum_decimal": language.Sum("price", over="1h"),
    "sum_vector": language.Sum("vector", over="1h"),
    "mean": language.Mean("amount", over=Window("7d", ending="24h ago")),
    "calendar": language.Sum("amount", over=language.Calendar("day", tz="America/New_York")),
    "variance": language.Variance("amount", over="1h"),
    "skew": language.Skew("amount", over="1h"),
    "first": language.First("product"),
    "last_day": language.Last("day"),
    "last_time": language.Last('"at"'),
    "last_open": language.Last("open"),
    "first_k": language.FirstK("cents", 3, over="1h"),
    "last_k": language.LastK("product", 5, distinct=True, over="7d"),
    "top_k": language.TopK("amount", 3, over="1h"),
    "frequent": language.MostFrequent("product", 3, over="1h"),
    "distinct": language.CountDistinct("product", over="1h"),
    "approximate": language.ApproxCountDistinct("product", over="1h"),
    "quantile": language.Quantile("amount", 0.9, over="1h"),
    "histogram": language.Histogram("amount", edges=[0.0, 10.0], over="1h"),
    "decayed": language.DecayedSum("amount", half_life="6h", over="1d"),
    "by_text": language.Sum("amount", over="7d", by="product"),
    "by_number": language.Count(over="7d", by="cents"),
    "before": language.Lag("count", "24h"),
}


def test_everything_the_language_says_is_registered(tmp_path: Path) -> None:
    shop, product = Entity("shop", join_key="shop"), Entity("product", join_key="product")
    views = [
        FeatureView("everything", entity=shop, source=Sale, features=AGGREGATIONS),
        LatestView("shop_facts", entity=shop, source=Shop, fields=["city"], ttl="365d"),
        LatestView("stock", entity=product, source=Stock, fields=["pieces"]),
        FeatureView(
            "money",
            entity=shop,
            source=Union({Sale: {"shop": "shop", "amount": "amount"}, Refund: {"shop": "shop", "amount": "-amount"}}),
            features={"total": language.Sum("amount", over="1d")},
        ),
    ]
    definitions = compile_definitions("everything", [*views, FeatureService("all", views)])
    settings = ConnectionSettings(home=tmp_path, project="everything", kafka_bootstrap="127.0.0.1:9092")

    write_registry(settings, definitions)

    registry = SqlRegistry(SqlRegistryConfig(path=settings.registry_address()), "everything", None)
    found = registry.get_feature_view("everything", "everything")
    assert isinstance(found, FeastView)
    assert [field.name for field in found.features] == list(AGGREGATIONS)
    types = {field.name: field.dtype.to_value_type() for field in found.features}
    assert types["sum_vector"] == ValueType.DOUBLE_LIST
    assert types["sum_decimal"] == ValueType.DECIMAL
    assert types["last_day"] == ValueType.UNIX_TIMESTAMP
    assert types["last_k"] == ValueType.STRING_LIST
    assert types["by_text"] == ValueType.MAP
    assert types["by_number"] == ValueType.SCALAR_MAP
    facts = registry.get_feature_view("shop_facts", "everything")
    assert facts.ttl == timedelta(days=365)
    assert facts.stream_source is None
    assert facts.batch_source.name == "shops.parquet"
    stock = registry.get_feature_view("stock", "everything")
    assert stock.batch_source.identifier == ("lake", "stock")
    assert registry.get_feature_service("all", "everything").feature_view_projections[-1].name == "money"
    assert {source.name for source in registry.list_data_sources("everything")} >= {"sales", "events.sales", "refunds"}


@pytest.mark.parametrize("tag", ["headrace.plan", "headrace.fingerprint"])
def test_a_views_plan_stands_in_its_tags(tmp_path: Path, tag: str) -> None:
    view = FeatureView("v", entity=Entity("shop", join_key="shop"), source=Sale, features={"n": language.Count()})
    definitions = compile_definitions("tags", [view])
    settings = ConnectionSettings(home=tmp_path, project="tags", kafka_bootstrap="127.0.0.1:9092")
    write_registry(settings, definitions)
    registry = SqlRegistry(SqlRegistryConfig(path=settings.registry_address()), "tags", None)
    assert definitions.views["v"].fingerprint in registry.get_feature_view("v", "tags").tags[tag]
