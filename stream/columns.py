"""Messages of Kafka's client -> columns, with few looks at each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from schemas.decode import Batch
from schemas.decode import Message as DecodableMessage
from schemas.errors import DataError
from stream.batch import Ints

Found: TypeAlias = list[tuple[str, bytes | None]] | None


class Columns:
    """One topic's messages, column by column. The messages themselves are let go: their memory is used again."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._values: list[bytes | None] = []
        self._keys: list[bytes | None] = []
        self._stamps: list[tuple[int, int]] = []
        self._places: list[tuple[Ints, Ints]] = []
        self._headers: list[_Headers] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Takes some more in; of as many as fit into the processor's cache it is fastest."""
        count = len(messages)
        self._values += map(Message.value, messages)
        self._keys += map(Message.key, messages)
        self._stamps += map(Message.timestamp, messages)
        headers = cast("Iterator[Found]", map(Message.headers, messages))
        self._headers += [_Headers(found) if found else NO_HEADERS for found in headers]
        # A message, unlike an error, has a place.
        partitions = cast(Iterator[int], map(Message.partition, messages))
        offsets = cast(Iterator[int], map(Message.offset, messages))
        self._places.append((np.fromiter(partitions, np.int64, count), np.fromiter(offsets, np.int64, count)))

    def batch(self) -> Batch:
        """All of them. Raises DataError for a message without a timestamp (a broker older than 0.10)."""
        stamps = np.array(self._stamps, np.int64).reshape(-1, 2)
        if (stamps[:, 0] == TIMESTAMP_NOT_AVAILABLE).any():
            raise DataError(
                "messages carry a timestamp",
                where=self._topic,
                got="none",
                hint="set message.timestamp.type=LogAppendTime",
            )
        return Batch(
            self._topic,
            self._values,
            self._keys,
            np.concatenate([partitions for partitions, _ in self._places]),
            np.concatenate([offsets for _, offsets in self._places]),
            stamps[:, 1] * 1_000,
            # Of a message in a batch a decoder asks the headers alone.
            cast("list[DecodableMessage]", self._headers),
        )


class _Headers:
    """What is left of a message: its headers."""

    __slots__ = ("_found",)

    def __init__(self, found: Found) -> None:
        self._found = found

    def headers(self) -> Found:
        return self._found


NO_HEADERS = _Headers(None)


def rows_of(batch: Batch, rows: Ints) -> Batch:
    """Some messages of a batch."""
    index = rows.tolist()
    return Batch(
        batch.topic,
        [batch.values[row] for row in index],
        [batch.keys[row] for row in index],
        batch.partitions[rows],
        batch.offsets[rows],
        batch.timestamps_us[rows],
        [batch.messages[row] for row in index],
    )
