"""An event that has changed, and its producers before and after, in every format."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from pydantic import AliasChoices, field_validator
from pydantic import Field as PydanticField

from schemas.event import Event
from schemas.registry import Registry
from tests.unit.schemas.writers import MICROS, ProtoFields, avro, proto

FORMATS = ("json", "avro", "protobuf")
CHANNELS = ("web", "shop")
BUYER = PydanticField(validation_alias=AliasChoices("buyer", "customer"))


def order(topic: str, format_: str) -> type[Event]:
    """The event's class today: what it says of names, types and defaults holds for messages of every age."""

    class Order(Event, topic=topic, time="at", key=["buyer"], format=format_):
        at: datetime
        buyer: str = BUYER  # renamed: was `customer`
        amount: float  # widened: was an integer
        quantity: int  # widened: was 32 bits wide
        channel: Literal["web", "shop"]
        coupon: str | None = None  # added
        priority: int = 3  # added
        note: str = ""  # producers have stopped to send it

    return Order


def tolerant_order(topic: str, format_: str) -> type[Event]:
    """The same, for producers whose channels are not known in advance."""

    class TolerantOrder(order(topic, format_), topic=topic, time="at", format=format_):  # type: ignore[misc]
        channel: Literal["web", "shop", "other"]

        @field_validator("channel", mode="before")
        @classmethod
        def _unknown_is_other(cls, value: Any) -> Any:
            return value if value in CHANNELS else "other"

    return TolerantOrder


class Producer(NamedTuple):
    """How one generation of producers writes an order: its schema in either format, and the record."""

    avro: dict[str, Any]
    protobuf: ProtoFields
    record: Callable[[datetime, int], dict[str, Any]]

    def message(self, format_: str, registry: Registry, at: datetime, number: int) -> bytes:
        """The order of this number."""
        record = self.record(at, number)
        if format_ == "json":
            return json.dumps(record, default=datetime.isoformat).encode()
        if format_ == "avro":
            return avro(registry, self.avro, record, subject="orders")
        return proto(registry, self.protobuf, record, subject="orders")


def _channels(*symbols: str) -> dict[str, Any]:
    return {"type": "enum", "name": "Channel", "symbols": list(symbols)}


_AT = (1, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".google.protobuf.Timestamp")
OLD = Producer(
    {
        "at": MICROS,
        "customer": "string",
        "amount": "int",
        "quantity": "int",
        "channel": _channels(*CHANNELS),
        "note": "string",
        "session": "long",  # the event no longer has it
    },
    {
        "at": _AT,
        "customer": (2, Field.TYPE_STRING),
        "amount": (3, Field.TYPE_INT32),
        "quantity": (4, Field.TYPE_INT32),
        "channel": (5, Field.TYPE_STRING),
        "note": (6, Field.TYPE_STRING),
        "session": (7, Field.TYPE_INT64),
    },
    lambda at, number: {
        "at": at,
        "customer": f"buyer {number}",
        "amount": 2,
        "quantity": 7,
        "channel": "web",
        "note": "old",
        "session": number,
    },
)
NEW = Producer(
    {
        "at": MICROS,
        "buyer": "string",
        "amount": "double",
        "quantity": "long",
        "channel": _channels(*CHANNELS, "app"),
        "coupon": ["null", "string"],
        "priority": "int",
        "gift": "boolean",  # the event doesn't have it yet
    },
    {
        "at": _AT,
        "buyer": (2, Field.TYPE_STRING),
        "amount": (8, Field.TYPE_DOUBLE),
        "quantity": (4, Field.TYPE_INT64),
        "channel": (5, Field.TYPE_STRING),
        "coupon": (9, Field.TYPE_STRING, Field.LABEL_OPTIONAL, None, True),
        "priority": (10, Field.TYPE_INT32),
        "gift": (11, Field.TYPE_BOOL),
    },
    lambda at, number: {
        "at": at,
        "buyer": f"buyer {number}",
        "amount": 2.5,
        "quantity": 2**40,
        "channel": "shop",
        "coupon": None if number % 2 else "SPRING",
        "priority": 1,
        "gift": True,
    },
)
NEWEST = NEW._replace(record=lambda at, number: NEW.record(at, number) | {"channel": "app"})
"""What has a channel that the event doesn't know."""

OLD_ROW = {"amount": 2.0, "quantity": 7, "channel": "web", "coupon": None, "priority": 3, "note": "old"}
NEW_ROW = {"amount": 2.5, "quantity": 2**40, "channel": "shop", "priority": 1, "note": ""}


def expected_row(number: int, is_new: bool) -> dict[str, Any]:
    """The row of this number, without its time and place."""
    row: dict[str, Any] = dict(NEW_ROW if is_new else OLD_ROW)
    if is_new:
        row["coupon"] = None if number % 2 else "SPRING"
    return row | {"buyer": f"buyer {number}"}
