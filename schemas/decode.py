"""Messages of a topic -> events in Arrow, and rejections: the one entry for every format (`schemas/formats/`).

pydantic gives the meaning, whatever the format: what it refuses is a rejection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import ColumnBuilder
from schemas.errors import DataError
from schemas.event import Event, EventSpec, log_schema
from schemas.formats import reader_of
from schemas.formats.refusal import Refusal
from schemas.registry import Registry
from schemas.rejection import MESSAGE_BYTES_MAX, Reason, Rejection
from schemas.row import TIME_MAX_US, TIME_MIN_US

Ints = npt.NDArray[np.int64]


class Message(Protocol):
    """What a Kafka client's message answers."""

    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...


class Batch(NamedTuple):
    """Messages of one topic, column by column; `messages` are kept for the headers of those that are rejected."""

    topic: str
    values: list[bytes | None]
    keys: list[bytes | None]
    partitions: Ints
    offsets: Ints
    timestamps_us: Ints
    messages: Sequence[Message]

    @classmethod
    def of(cls, topic: str, messages: Sequence[Message]) -> Batch:
        """Raises DataError for a message without a timestamp (a broker older than 0.10)."""
        stamps = [message.timestamp() for message in messages]
        if any(kind == 0 for kind, _ in stamps):
            raise DataError(
                "messages carry a timestamp", where=topic, got="none", hint="set message.timestamp.type=LogAppendTime"
            )
        return cls(
            topic,
            [message.value() for message in messages],
            [message.key() for message in messages],
            np.array([message.partition() for message in messages], np.int64),
            np.array([message.offset() for message in messages], np.int64),
            np.array([milliseconds for _, milliseconds in stamps], np.int64) * 1_000,
            messages,
        )

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Decoded:
    """The events of a batch in its order (`log_schema`), and what was rejected beside them."""

    table: pa.Table
    rejections: list[Rejection]


class Decoder:
    """Decodes the messages of one event type's topic. `registry` is asked for the schemas of Avro and Protobuf."""

    def __init__(self, event: type[Event], registry: Registry | None = None) -> None:
        self.spec: EventSpec = event.spec()
        self._schema = log_schema(self.spec)
        self._reader = reader_of(event, registry)
        self._columns = ColumnBuilder(event)

    def decode(self, batch: Batch) -> Decoded:
        """Every message is an event of the table or one rejection; never an exception for what stands in a message.

        Raises NotReady where a schema is needed that the registry can't be asked for now: nothing is decoded then, and
        the same batch may be decoded again.
        """
        sizes = [len(value) if value else 0 for value in batch.values]
        if not sizes or (min(sizes) > 0 and max(sizes) <= MESSAGE_BYTES_MAX):
            table, refusals = self._decode(batch, batch.values, np.arange(len(sizes)))
        else:
            readable = [row for row, size in enumerate(sizes) if 0 < size <= MESSAGE_BYTES_MAX]
            table, refusals = self._decode(batch, [batch.values[row] for row in readable], np.array(readable, np.int64))
            refusals += [refusal for row, size in enumerate(sizes) if (refusal := _by_size(row, size)) is not None]
        refusals.sort(key=lambda refusal: refusal.row)
        return Decoded(table, [_rejection(batch, refusal) for refusal in refusals])

    def _decode(self, batch: Batch, values: Sequence[bytes | None], places: Ints) -> tuple[pa.Table, list[Refusal]]:
        """The table of these values, none of which is empty, and the refusals; `places` are theirs in the batch."""
        read = self._reader.read(values)  # type: ignore[arg-type]
        arrays, misfits = self._columns.build(read.events, read.lists)
        rows = places[read.rows]
        refusals = [refusal._replace(row=int(places[refusal.row])) for refusal in read.refusals]
        for index, (detail, path) in misfits.items():
            reason = Reason.BAD_TIME if path == self.spec.time else Reason.BAD_VALUE
            refusals.append(Refusal(int(rows[index]), reason, detail, path))
        table = self._table(batch, rows, arrays)
        if misfits:
            fits = np.ones(len(rows), np.bool_)
            fits[list(misfits)] = False
            table, rows = table.filter(pa.array(fits)), rows[fits]
        if read.block is not None:
            block = self._table(batch, places[read.block.rows], read.block.arrays)
            table, rows = _in_order(table, rows, block, places[read.block.rows])
        return self._check_time(table, rows, batch, refusals), refusals

    def _table(self, batch: Batch, rows: Ints, arrays: list[pa.Array]) -> pa.Table:
        log = [
            pa.array(batch.partitions[rows].astype(np.int32)),
            pa.array(batch.offsets[rows]),
            pa.array(batch.timestamps_us[rows]).cast(pa.timestamp("us")),
            pa.array([batch.keys[row] for row in rows.tolist()], pa.binary()),
        ]
        return pa.Table.from_arrays(arrays + log, schema=self._schema)

    def _check_time(self, table: pa.Table, rows: Ints, batch: Batch, refusals: list[Refusal]) -> pa.Table:
        time = table[self.spec.time].cast(pa.int64()).to_numpy()
        outside = (time < TIME_MIN_US) | (time > TIME_MAX_US)
        ahead = ~outside & (time - batch.timestamps_us[rows] > self.spec.max_future_us)
        if not (outside | ahead).any():
            return table
        for at in np.flatnonzero(outside).tolist():
            detail = "an event's instant lies in 1700 to 2250"
            refusals.append(Refusal(int(rows[at]), Reason.BAD_TIME, detail, self.spec.time))
        for at in np.flatnonzero(ahead).tolist():
            seconds = (int(time[at]) - int(batch.timestamps_us[rows[at]])) / 1e6
            detail = f"{seconds:.0f} s ahead of the broker's clock; max_future is {self.spec.max_future_us / 1e6:.0f} s"
            refusals.append(Refusal(int(rows[at]), Reason.FUTURE, detail, self.spec.time))
        return table.filter(pa.array(~(outside | ahead)))


def _in_order(table: pa.Table, rows: Ints, block: pa.Table, block_rows: Ints) -> tuple[pa.Table, Ints]:
    if not len(table):
        return block, block_rows
    together = np.concatenate([rows, block_rows])
    order = np.argsort(together)
    return pa.concat_tables([table, block]).take(pa.array(order)), together[order]


def _by_size(row: int, size: int) -> Refusal | None:
    if size == 0:
        return Refusal(row, Reason.EMPTY, "the message has no bytes", "")
    if size > MESSAGE_BYTES_MAX:
        return Refusal(row, Reason.TOO_LARGE, f"the message has {size} bytes; at most {MESSAGE_BYTES_MAX} are read", "")
    return None


def _rejection(batch: Batch, refusal: Refusal) -> Rejection:
    row = refusal.row
    return Rejection(
        reason=refusal.reason,
        detail=refusal.detail,
        path=refusal.path,
        topic=batch.topic,
        partition=int(batch.partitions[row]),
        offset=int(batch.offsets[row]),
        timestamp_us=int(batch.timestamps_us[row]),
        key=batch.keys[row],
        headers=list(batch.messages[row].headers() or []),
        value=batch.values[row],
    )
