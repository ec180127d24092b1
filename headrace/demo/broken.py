"""Deliberately broken messages, each made of a good one: what a bad deployment of a producer sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.event import EventSpec
from schemas.rejection import Reason

PLACEHOLDER = b'"\\u0000"'


@dataclass(frozen=True)
class Breakage:
    """One way to break a message: what people call it, why it must be refused, and how it is done."""

    name: str
    reason: Reason
    apply: Callable[[dict[str, Any], EventSpec], bytes]


def _not_json(event: dict[str, Any], _: EventSpec) -> bytes:
    whole = orjson.dumps(event)
    return whole[: len(whole) * 2 // 3]


def _missing_field(event: dict[str, Any], _: EventSpec) -> bytes:
    return orjson.dumps({name: value for name, value in event.items() if name != "carrier"})


def _wrong_type(event: dict[str, Any], _: EventSpec) -> bytes:
    return orjson.dumps(event | {"distance_miles": f"{event['distance_miles']} miles"})


def _nan(event: dict[str, Any], spec: EventSpec) -> bytes:
    delay = next(column.name for column in spec.columns if column.name.endswith("_delay_min"))
    return orjson.dumps(event | {delay: "\0"}).replace(PLACEHOLDER, b"NaN")


def _no_such_day(event: dict[str, Any], spec: EventSpec) -> bytes:
    return orjson.dumps(event | {spec.time: "2013-02-30T25:61:00Z"})


def _future(event: dict[str, Any], spec: EventSpec) -> bytes:
    return orjson.dumps(event | {spec.time: "2113" + event[spec.time][4:]})


BREAKAGES = (
    Breakage("not JSON", Reason.UNDECODABLE, _not_json),
    Breakage("a missing field", Reason.MISSING_FIELD, _missing_field),
    Breakage("a wrong type", Reason.WRONG_TYPE, _wrong_type),
    Breakage("NaN", Reason.BAD_VALUE, _nan),
    Breakage("a day that does not exist", Reason.BAD_TIME, _no_such_day),
    Breakage("a time a century ahead", Reason.FUTURE, _future),
)


def break_message(breakage: Breakage, value: bytes, spec: EventSpec) -> bytes:
    """The good message's bytes, broken."""
    return breakage.apply(orjson.loads(value), spec)
