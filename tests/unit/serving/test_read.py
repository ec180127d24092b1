"""The online read against state that the real kernel and the real script made."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.merge import read_records
from schemas.errors import NotFound, NotReady, RequestError
from schemas.row import checkpoint_redis_key, row_redis_key, shard_of
from serving.read import Reader
from serving.vectors import Status, Vectors
from tests.unit.serving.online import Online, us

NOW = datetime.fromisoformat("2026-03-01T12:00:00")


def order(customer: str, minutes_ago: float, amount: float | None = 10.0, **more: Any) -> dict[str, Any]:
    row = {"ordered_at": NOW - timedelta(minutes=minutes_ago), "customer": customer, "shop": 1, "amount": amount}
    return row | {"items": 2, "coupon": None, "paid": True} | more


def column(vectors: Vectors, name: str) -> tuple[list[Any], list[int]]:
    at = vectors.reading.full_names.index(name)
    return vectors.columns[at].to_list(), vectors.statuses[at].tolist()


ORDERS = [
    order("ann", 30, 10.0, coupon="SPRING"),
    order("bob", 50, 5.5, shop=2),
    order("ann", 90, None, items=7),
    order("ann", 5, 2.25, coupon="AUTUMN", paid=False),
    order("cleo", 60 * 30, 1e-9),
    order("ann", 60 * 24 * 3, 100.0),
]


def test_a_vector_equals_what_the_offline_read_computes(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS[:3]})
    online.add({"Order": ORDERS[3:]})
    customers = ["ann", "bob", "nobody", "cleo", "ann"]
    entities = {"customer": customers, "shop": [1, 2, 1, 1, 2], "price": [10.0, 3, 1.5, 2.0, -0.0]}
    vectors = reader.read("live", entities, as_of_us=us(NOW))
    assert vectors.count == 5
    for plan in online.definitions.views.values():
        records = online.kernel.records(plan, [online.log("Order")])
        keys = online.kernel.entity_keys(plan, pa.table({key.name: pa.array(entities[key.name]) for key in plan.keys}))
        names = [feature.name for feature in plan.features]
        own = reader.read([f"{plan.name}:{name}" for name in names], entities, as_of_us=us(NOW))
        expected = read_records(plan, records, keys, np.full(5, us(NOW)), names)
        for name, values in zip(names, expected, strict=True):
            served = column(own, f"{plan.name}__{name}")[0]
            if "stddev" in name:  # within 1e-9; everything else holds to the bit (DESIGN §2)
                served, wanted = (
                    [None if v is None else float(f"{v:.10g}") for v in c] for c in (served, values.to_list())
                )
                assert served == wanted
            else:
                assert served == values.to_list(), name
    assert column(vectors, "ratio__of_mean")[0] == [10.0 / 6.125, 3 / 5.5, None, None, -0.0 / 6.125]
    assert column(vectors, "ratio__here")[0] == [1.0, 1.0, None, 1.0, 0.0]


def test_a_count_of_nothing_is_present_and_zero_and_everything_else_is_null(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    vectors = reader.read("live", {"customer": ["nobody"], "shop": [1], "price": [1.0]})
    assert column(vectors, "spending__orders") == ([0], [Status.PRESENT])
    assert column(vectors, "spending__amount_1h") == ([None], [Status.NULL_VALUE])
    assert column(vectors, "coupons__last_coupon") == ([None], [Status.NULL_VALUE])
    assert column(vectors, "ratio__of_mean") == ([None], [Status.NULL_VALUE])
    gone = reader.read("live", {"customer": ["cleo"], "shop": [1], "price": [1.0]})
    assert column(gone, "spending__orders_1h") == ([0], [Status.PRESENT])
    assert column(gone, "spending__orders") == ([1], [Status.PRESENT])


def test_a_null_key_gives_nulls_even_for_counts(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    vectors = reader.read("live", {"customer": ["ann", None], "shop": [None, 1], "price": [1.0, 1.0]})
    assert column(vectors, "spending__orders") == ([4, None], [Status.PRESENT, Status.NULL_VALUE])
    assert column(vectors, "visits__orders") == ([None, None], [Status.NULL_VALUE, Status.NULL_VALUE])


def test_the_wall_clock_gives_way_to_a_newer_event(online: Online, reader: Reader) -> None:
    ahead = datetime.now() + timedelta(days=400)  # noqa: DTZ005 (any instant that the wall clock has not reached)
    online.add({"Order": [order("ann", 0, ordered_at=ahead), order("bob", 0)]})
    vectors = reader.read(["spending:orders_1h"], {"customer": ["ann", "bob"]})
    assert vectors.instants_us[0] == us(ahead) + 1
    assert vectors.instants_us[1] < us(ahead)
    assert column(vectors, "spending__orders_1h")[0] == [1, 0]


def test_the_event_clock_is_one_microsecond_after_the_newest_event_of_the_source(
    online: Online, reader: Reader
) -> None:
    online.add({"Order": ORDERS})
    vectors = reader.read("replay", {"customer": ["cleo", "nobody"]})
    assert vectors.instants_us.tolist() == [us(NOW - timedelta(minutes=5)) + 1] * 2
    assert column(vectors, "spending__orders")[0] == [1, 0]


def test_an_as_of_in_the_folded_past_is_refused_value_by_value(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    at = us(NOW - timedelta(minutes=5))
    entities = {"customer": ["ann", "bob"], "shop": [1, 2], "price": [1.0, 1.0]}
    vectors = reader.read("live", entities, as_of_us=at)
    assert column(vectors, "spending__orders") == ([None, 1], [Status.INVALID, Status.PRESENT])
    assert column(vectors, "ratio__here") == ([None, 1.0], [Status.INVALID, Status.PRESENT])
    reason = vectors.reasons()[0]
    assert "2026-03-01T11:55:00Z" in reason
    assert "headrace train" in reason
    assert reader.read("live", entities, as_of_us=at + 1).reasons() == {}


def test_a_shard_without_a_checkpoint_is_not_ready(online: Online, reader: Reader) -> None:
    with pytest.raises(NotReady, match="spending: a shard of the view has no checkpoint yet"):
        reader.read(["spending:orders"], {"customer": ["ann"]})
    online.advance()
    assert column(reader.read(["spending:orders"], {"customer": ["ann"]}), "spending__orders")[0] == [0]


def test_a_row_of_another_generation_is_absent(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    plan = online.definitions.views["spending"]
    shard = shard_of("ann", plan.shards)
    checkpoint = checkpoint_redis_key(plan.storage_id, shard)
    stored = online.redis.get(checkpoint)
    online.redis.set(checkpoint, b"another!" + stored[8:])
    assert online.redis.exists(row_redis_key(plan.storage_id, shard, "ann"))
    assert column(reader.read(["spending:orders"], {"customer": ["ann"]}), "spending__orders")[0] == [0]


def test_text_is_read_from_the_hash_beside_the_row(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    vectors = reader.read("replay", {"customer": ["ann", "bob"]})
    assert column(vectors, "coupons__last_coupon")[0] == ["AUTUMN", None]
    assert column(vectors, "coupons__least_coupon_24h")[0] == ["AUTUMN", None]
    assert column(vectors, "coupons__used") == ([2, 0], [Status.PRESENT, Status.PRESENT])


def test_an_answer_beyond_max_lag_says_so(online: Online, reader: Reader) -> None:
    old = datetime.fromisoformat("2020-01-01")
    online.add({"Order": [order("ann", 0, ordered_at=old)]})
    vectors = reader.read("fresh", {"customer": ["ann"]})
    assert column(vectors, "spending__orders") == ([1], [Status.OUTSIDE_MAX_AGE])
    assert vectors.ages_us[0] == vectors.instants_us[0] - us(old)
    fresh = reader.read("fresh", {"customer": ["ann"]}, as_of_us=us(old) + 300_000_000)
    assert column(fresh, "spending__orders") == ([1], [Status.PRESENT])


def test_a_latest_value_says_why_it_is_missing(online: Online, reader: Reader) -> None:
    online.add({"Order": [*ORDERS, order("dan", 10, None), order("eve", 60 * 30, 1.0), order("eve", 60 * 31, 2.0)]})
    entities = {"customer": ["ann", "dan", "eve", "nobody"]}
    for what in (["newest:amount"], ["newest:amount", "newest_text:items"]):
        vectors = reader.read(what, entities, as_of_us=us(NOW))
        assert column(vectors, "newest__amount") == (
            [2.25, None, None, None],
            [Status.PRESENT, Status.NULL_VALUE, Status.OUTSIDE_MAX_AGE, Status.NOT_FOUND],
        )
    text = reader.read(["newest_text:coupon", "newest_text:items"], entities, as_of_us=us(NOW))
    assert column(text, "newest_text__coupon") == (
        ["AUTUMN", None, None, None],
        [Status.PRESENT, Status.NULL_VALUE, Status.NULL_VALUE, Status.NOT_FOUND],
    )
    assert column(text, "newest_text__items")[0] == [2, 2, 2, None]


def test_a_value_beyond_its_bound_is_invalid_with_its_reason(online: Online, reader: Reader) -> None:
    online.add({"Order": [order("ann", 5, items=n) for n in range(1_100)] + [order("bob", 5)]})
    vectors = reader.read(["crowded:often"], {"customer": ["ann", "bob"]})
    assert column(vectors, "crowded__often") == ([None, [2]], [Status.INVALID, Status.PRESENT])
    assert vectors.reasons() == {0: "crowded:often has more distinct values in a tile than it keeps"}


def test_features_come_view_by_view_as_feast_orders_them(online: Online, reader: Reader) -> None:
    online.advance()
    references = ["visits:amount", "spending:orders", "visits:orders", "visits:amount"]
    vectors = reader.read(references, {"customer": ["ann"], "shop": [1]})
    assert vectors.reading.full_names == ("visits__amount", "visits__orders", "spending__orders")
    assert list(vectors.to_dict(full_feature_names=True)) == ["customer", "shop", *vectors.reading.full_names]
    with pytest.raises(RequestError, match="have the same name; got orders"):
        vectors.to_dict()


def test_an_entity_name_stands_for_its_join_key(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    vectors = reader.read(["visits:orders"], {"customer": ["ann"], "store": [1]})
    assert vectors.to_dict() == {"customer": ["ann"], "shop": [1], "orders": [4]}


def test_no_entities_are_an_empty_answer(online: Online, reader: Reader) -> None:
    online.advance()
    assert reader.read(["spending:orders", "coupons:last_coupon"], {"customer": []}).to_dict() == {
        "customer": [],
        "orders": [],
        "last_coupon": [],
    }


@pytest.mark.parametrize(
    ("what", "entities", "kind", "message"),
    [
        ("nosuch", {"customer": ["ann"]}, NotFound, "no such feature service is applied; got 'nosuch'"),
        (["spendin:orders"], {"customer": ["ann"]}, NotFound, "did you mean 'spending'?"),
        (["spending:order"], {"customer": ["ann"]}, NotFound, "did you mean 'orders'?"),
        (["spending"], {"customer": ["ann"]}, RequestError, "a feature is named as view:feature"),
        (["spending:orders"], {"custmer": ["ann"]}, RequestError, "lacks the column 'customer'; got custmer"),
        (["spending:orders"], {}, RequestError, "a request names entities; got none"),
        (["spending:orders"], {"customer": [7]}, RequestError, "takes text; got '7' of type int"),
        (["visits:orders"], {"customer": ["ann"], "shop": ["1"]}, RequestError, "takes an integer of 64 bits"),
        (["visits:orders"], {"customer": ["ann"], "shop": [True]}, RequestError, "got 'True' of type bool"),
        (["visits:orders"], {"customer": ["ann"], "shop": [1 << 63]}, RequestError, "takes an integer of 64 bits"),
        (
            ["visits:orders"],
            {"customer": ["ann"], "shop": [1, 2]},
            RequestError,
            "columns of a request have one length",
        ),
        ("live", {"customer": ["ann"], "shop": [1]}, RequestError, "lacks the column 'price'"),
        ("live", {"customer": ["ann"], "shop": [1], "price": [None]}, RequestError, "'price' is never null"),
        (
            "live",
            {"customer": ["ann"], "shop": [1], "price": ["1"]},
            RequestError,
            "takes float64; got '1' of type str",
        ),
    ],
)
def test_a_question_that_has_no_answer_says_why(
    online: Online, reader: Reader, what: Any, entities: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as error:
        reader.read(what, entities)
    assert message in str(error.value)
    assert type(error.value) is kind
