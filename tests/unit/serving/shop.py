"""A small project that has everything a read meets: text cells, a composite key, a derived view, both clocks."""

from __future__ import annotations

from datetime import datetime

from features import (
    Count,
    DerivedView,
    Entity,
    FeatureService,
    FeatureView,
    First,
    Last,
    LatestView,
    Max,
    Mean,
    Min,
    MostFrequent,
    Request,
    StdDev,
    Sum,
)
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event


class Order(Event, topic="orders", time="ordered_at", key=["customer"]):
    """One order."""

    ordered_at: datetime
    customer: str
    shop: int
    amount: float | None
    items: int
    coupon: str | None
    paid: bool


customer = Entity("customer", join_key="customer")
shop = Entity("store", join_key="shop")

spending = FeatureView(
    "spending",
    entity=customer,
    source=Order,
    features={
        "orders_1h": Count(over="1h"),
        "orders": Count(),
        "amount_1h": Sum("amount", over="1h"),
        "amount_24h": Sum("amount", over="24h"),
        "items_24h": Sum("items", over="24h"),
        "amount_mean_24h": Mean("amount", over="24h"),
        "amount_min_24h": Min("amount", over="24h"),
        "amount_max": Max("amount"),
        "first_amount": First("amount"),
        "last_amount": Last("amount"),
        "amount_stddev": StdDev("amount"),
        "last_paid": Last("paid"),
        "last_order": Last("ordered_at"),
    },
)
coupons = FeatureView(
    "coupons",
    entity=customer,
    source=Order,
    where="coupon IS NOT NULL",
    features={"last_coupon": Last("coupon"), "least_coupon_24h": Min("coupon", over="24h"), "used": Count()},
)
visits = FeatureView(
    "visits", entities=[customer, shop], source=Order, features={"orders": Count(), "amount": Sum("amount", over="7d")}
)
newest = LatestView("newest", entity=customer, source=Order, fields=["amount", "items", "paid"], ttl="1d")
newest_text = LatestView("newest_text", entity=customer, source=Order, fields=["coupon", "items"])
crowded = FeatureView("crowded", entity=customer, source=Order, features={"often": MostFrequent("items", 1)})
ratio = DerivedView(
    "ratio",
    inputs=[spending, visits, Request(price=float)],
    features={"of_mean": "price / spending.amount_mean_24h", "here": "visits.orders * 1.0 / spending.orders"},
)
live = FeatureService("live", [spending, coupons, visits, ratio])
replay = FeatureService("replay", [spending["orders_1h", "orders"], coupons], clock="event", log=0.5)
fresh = FeatureService("fresh", [spending["orders"]], max_lag="5m")


def definitions(project: str = "shop") -> Definitions:
    """Everything above, planned for a project."""
    return compile_definitions(
        project, [live, replay, fresh, spending, coupons, visits, newest, newest_text, crowded, ratio, customer, shop]
    )
