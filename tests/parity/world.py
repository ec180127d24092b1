"""Events of every type for the parity tests: as a declared event, as oracle events and as a log table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pyarrow as pa
from hypothesis import strategies as st
from pydantic import Field

from schemas.event import Event, log_schema
from tests import oracle

MINUTE_US = 60_000_000
START_US = 1_699_999_200_000_000
"""A multiple of an hour and of no day: 2023-11-14T22:00."""
EPOCH = datetime(1970, 1, 1)


class Reading(Event, topic="readings", time="at", key=["sensor"]):
    """A row with a column of every type; all but the time may be null."""

    at: datetime
    sensor: str | None
    room: int | None
    x: float | None
    n: int | None
    s: str | None
    raw: bytes | None
    flag: bool | None
    day: date | None
    seen: datetime | None
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=3)] | None
    tags: list[str] | None
    vector: list[float] | None
    weights: dict[str, float] | None


def instant(t_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=t_us)


def log_table(events: Sequence[tuple[str | None, oracle.Event]]) -> pa.Table:
    """The events as the event log holds them."""
    rows = [
        event.row
        | {
            "at": instant(event.t),
            "sensor": sensor,
            "kafka_partition": event.partition,
            "kafka_offset": event.offset,
            "kafka_timestamp": instant(event.t),
            "kafka_key": None,
        }
        for sensor, event in events
    ]
    return pa.Table.from_pylist(rows, log_schema(Reading.spec()))


floats = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.1, 0.2, 0.3, 1e16, -1e16, 1e-300, 2.0**80, -(2.0**76), 2.0**-85, 5e-324]),
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False),
).map(lambda x: x + 0.0)
integers = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
words = st.one_of(st.sampled_from(["a", "b", "aa", "", "ä", "\U0001f600", "z" * 9]), st.text(max_size=4)).filter(
    lambda s: "\x00" not in s
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "room": st.integers(1, 2),
    "x": floats,
    "n": integers,
    "s": words,
    "raw": st.binary(max_size=5),
    "flag": st.booleans(),
    "day": st.dates(date(1960, 1, 1), date(2100, 1, 1)),
    "seen": st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)),
    "price": st.integers(-(10**12) + 1, 10**12 - 1).map(lambda i: Decimal(i).scaleb(-3)),
    "tags": st.lists(words, max_size=4),
    "vector": st.lists(floats, min_size=2, max_size=2),
    "weights": st.dictionaries(st.sampled_from(["a", "b", "c"]), floats, max_size=3),
}

SENSORS = ("p", "q")


@st.composite
def times(draw: st.DrawFn, around_us: int) -> int:
    """Instants that meet: on hops, a µs beside them, equal ones, and some far apart."""
    step = draw(st.sampled_from([MINUTE_US, 5 * MINUTE_US, 60 * MINUTE_US, 24 * 60 * MINUTE_US]))
    return around_us + draw(st.integers(-12, 12)) * step + draw(st.sampled_from([0, 0, -1, 1, 1234567]))


@st.composite
def histories(
    draw: st.DrawFn,
    columns: Sequence[str],
    values: dict[str, st.SearchStrategy[Any]] | None = None,
    events_max: int = 18,
    around_us: int = START_US,
    sources: int = 1,
) -> list[tuple[str | None, oracle.Event]]:
    """Events in order of arrival: times out of order, ties, nulls, two partitions; the columns not named are null."""
    strategies = VALUES | (values or {})
    offsets = {0: 0, 1: 0}
    history = []
    for _ in range(draw(st.integers(0, events_max))):
        partition = draw(st.integers(0, 1))
        row = dict.fromkeys(VALUES) | {
            name: draw(st.one_of(st.none(), strategies[name], strategies[name], strategies[name])) for name in columns
        }
        sensor = draw(st.sampled_from([*SENSORS, *SENSORS, *SENSORS, None]))
        history.append(
            (
                sensor,
                oracle.Event(
                    draw(times(around_us)), draw(st.integers(0, sources - 1)), partition, offsets[partition], row
                ),
            )
        )
        offsets[partition] += draw(st.sampled_from([1, 1, 3]))
    return history
