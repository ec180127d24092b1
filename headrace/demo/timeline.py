"""What is produced: every departure and arrival as a message, in the order in which they became known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import pandas as pd
import pyarrow as pa

from headrace.demo.broken import BREAKAGES, Breakage, break_message
from schemas.event import Event, EventSpec
from schemas.flights import Arrival, Flight

EVENTS: tuple[type[Event], ...] = (Flight, Arrival)
BROKEN_OF_EACH = 100
SLICE = 5_000
"""Messages handed to Kafka at once: enough to cost nothing each, few enough for a progress bar to move."""


class Message(NamedTuple):
    """One message; `breakage` says how it was broken, None for a good one."""

    topic: str
    key: bytes
    value: bytes
    breakage: Breakage | None


@dataclass(frozen=True)
class Timeline:
    """The good messages by the instant at which they became known, and the broken ones: (good message, how it breaks).

    A broken message follows the good one that it was made of, so nothing good is missing.
    """

    specs: dict[str, EventSpec]
    topics: list[str]
    keys: list[bytes]
    values: list[bytes]
    broken: dict[int, Breakage]

    @property
    def good(self) -> dict[str, int]:
        """Good messages by topic."""
        return {topic: self.topics.count(topic) for topic in self.specs}

    def __len__(self) -> int:
        return len(self.values) + len(self.broken)

    def slices(self) -> Iterator[list[Message]]:
        """All messages in order, some thousands at a time."""
        for start in range(0, len(self.values), SLICE):
            slice_: list[Message] = []
            for at in range(start, min(start + SLICE, len(self.values))):
                topic, key, value = self.topics[at], self.keys[at], self.values[at]
                slice_.append(Message(topic, key, value, None))
                if breakage := self.broken.get(at):
                    slice_.append(Message(topic, key, break_message(breakage, value, self.specs[topic]), breakage))
            yield slice_


def timeline(flights: pd.DataFrame, broken_of_each: int = BROKEN_OF_EACH) -> Timeline:
    """The messages of all flights that left (and of those that landed), and evenly among them the broken ones."""
    specs = {str(event.spec().topic): event.spec() for event in EVENTS}
    parts = [_messages(flights, topic, spec) for topic, spec in specs.items()]
    ordered = pa.concat_tables(parts).sort_by(
        [("known_at", "ascending"), ("topic", "descending"), ("row", "ascending")]
    )
    return Timeline(
        specs,
        ordered["topic"].to_pylist(),
        ordered["key"].to_pylist(),
        ordered["value"].to_pylist(),
        _broken(ordered.num_rows, broken_of_each),
    )


def _messages(flights: pd.DataFrame, topic: str, spec: EventSpec) -> pa.Table:
    """known_at, topic, row, key and value (JSON with the columns that the event type declares) of one topic."""
    fields = [
        f"'{column.name}', "
        + (f"strftime({column.name}, '%Y-%m-%dT%H:%M:%SZ')" if column.name == spec.time else column.name)
        for column in spec.columns
    ]
    with duckdb.connect(":memory:") as connection:
        connection.register("flights", flights.reset_index(names="row"))
        return connection.sql(
            f"""
            SELECT {spec.time} AS known_at, '{topic}' AS topic, row,
                   encode({" || ".join(spec.key)}) AS key, encode(json_object({", ".join(fields)})::VARCHAR) AS value
            FROM flights WHERE {spec.time} IS NOT NULL
            """
        ).to_arrow_table()


def _broken(messages: int, of_each: int) -> dict[int, Breakage]:
    count = of_each * len(BREAKAGES)
    return {at * messages // count: BREAKAGES[at % len(BREAKAGES)] for at in range(count)}
