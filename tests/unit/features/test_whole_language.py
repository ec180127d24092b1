"""A project with every word of the language compiles, and its document is read back as it was."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import Field

import features
from features import (
    Calendar,
    Count,
    DecayedSum,
    Entity,
    FeatureService,
    FeatureView,
    Lag,
    Last,
    LastK,
    LatestView,
    Mean,
    Sum,
    Union,
    Window,
    udf,
)
from features.plan import Definitions, Finish
from features.planner import compile_definitions
from features.reference import EXAMPLES
from schemas.errors import DefinitionError
from schemas.event import Event


class Payment(Event, topic="whole_payments", time="at", key=["payer"]):
    at: datetime
    payer: str
    x: float | None
    n: int | None
    text: str | None
    day: date | None
    amount: Annotated[Decimal, Field(max_digits=18, decimal_places=2)] | None
    vector: list[float] | None
    tags: list[str] | None
    weights: dict[str, float] | None


class Refund(Event, path="refunds.parquet", time="at", key=["payee"]):
    at: datetime
    payee: str
    x: float


class Limit(Event, table="lake.limits", time="at", key=["payer"]):
    at: datetime
    payer: str
    limit: float | None


@udf(returns=float)
def double(x: Any) -> Any:
    """2 x."""
    return [None if each is None else 2 * each for each in x.to_pylist()]


payer = Entity("payer")
WHOLE = {f"f{n}": example.aggregation for n, example in enumerate(EXAMPLES)} | {
    "by": Sum("amount", over="7d", by="text"),
    "by_list": LastK("text", 2, over="7d", by="n", where="x > 0"),
    "vectors": Mean("vector", over=Window("3h", hop="30m")),
    "maps": Sum("weights"),
    "tags": LastK("tags", 3, distinct=True),
    "nested": Last("vector"),
    "offset": Sum("amount", over=Window("7d", ending="24h ago")),
    "yesterday": Count(over=Calendar("day", tz="Europe/Lisbon", ago=1)),
    "lag": Lag("by", "24h"),
    "lag_of_all": Lag("maps", "30d"),
    "decay_lag": Lag("decay", "1h"),
    "decay": DecayedSum("x", half_life="6h", over="7d"),
    "python": Sum(double, over="1h"),
}
whole = FeatureView("whole", entity=payer, source=Payment, features=WHOLE)
both = FeatureView(
    "both",
    entity=payer,
    source=Union({Payment: {"payer": "payer", "x": "x"}, Refund: {"payer": "payee", "x": "-x"}}),
    features={"balance": Sum("x")},
)
limits = LatestView("limits", entity=payer, source=Limit, fields=["limit"], ttl="365d")
service = FeatureService("everything", [whole, both, limits])
DEFINITIONS = compile_definitions("whole", [service, whole, both, limits])


def test_the_document_is_read_back_as_it_was() -> None:
    assert Definitions.from_json(DEFINITIONS.to_json()) == DEFINITIONS
    assert Definitions.from_json(DEFINITIONS.to_json()).to_json() == DEFINITIONS.to_json()


def test_what_a_view_refers_to_is_taken_along() -> None:
    assert set(DEFINITIONS.events) == {"Payment", "Refund", "Limit"}
    assert DEFINITIONS.views["limits"].sources[0].event.table == "lake.limits"
    assert DEFINITIONS.views["both"].sources[1].event.path == "refunds.parquet"


def test_types() -> None:
    plan = DEFINITIONS.views["whole"]
    types = {feature.name: feature.type for feature in plan.features}
    assert types["by"] == "map<string,decimal(38,2)>"
    assert types["by_list"] == "map<int64,list<string>>"
    assert types["vectors"] == "list<float64>"
    assert types["maps"] == "map<string,float64>"
    assert types["nested"] == "list<float64>"
    assert DEFINITIONS.views["limits"].feature("limit").finish is Finish.LATEST


def test_a_lag_is_named_by_what_it_means() -> None:
    plan = DEFINITIONS.views["whole"]
    assert plan.feature("lag").window.ending_us == 24 * 3_600_000_000
    resolution = plan.resolutions[plan.feature("lag_of_all").window.resolution]
    assert resolution.keeps_past
    assert resolution.hop_us == 24 * 3_600_000_000


def test_every_public_aggregation_stands_in_the_view() -> None:
    used = {type(each).__name__ for each in WHOLE.values()}
    words = {name for name in features.__all__ if isinstance(getattr(features, name), type)}
    others = {"Calendar", "DerivedView", "Enriched", "Entity", "FeatureService", "FeatureView", "LatestView", "Request"}
    assert words - used - others == {"Union", "Window"}


def test_the_fingerprint_is_of_the_meaning_alone() -> None:
    def again(**keywords: Any) -> str:
        chosen = {"f": Sum("x", over="1h"), "g": LastK("text", keywords.pop("k", 2))}
        return FeatureView("again", entity=payer, source=Payment, features=chosen, **keywords).plan.fingerprint

    assert again() == again(owner="somebody", description="other words", tags={"a": "b"})
    assert again() != again(k=3)
    assert again() != again(where="x > 0")


def test_a_decimal_too_long_for_its_sum_is_refused() -> None:
    with pytest.raises(DefinitionError, match="at most 28 digits.*DECIMAL\\(28, 2\\)"):
        FeatureView("long", entity=payer, source=Payment, features={"f": Sum("amount::DECIMAL(38, 2)")})
