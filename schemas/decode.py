"""Messages of a topic -> events in Arrow, and rejections. An event format is added here.

pydantic gives the meaning: what it refuses is a rejection. msgspec is the fast path (20 times faster): a Struct made of
the same fields and constraints, used where the schema has nothing that only pydantic can check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import DataError
from schemas.event import Event, EventSpec, log_schema
from schemas.fast import fast_decoder
from schemas.rejection import DETAIL_CHARACTERS_MAX, Reason, Rejection
from schemas.row import TIME_MAX_US, TIME_MIN_US

Ints = npt.NDArray[np.int64]
EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
MILLISECONDS_BEYOND = 20_000_000_000
"""An epoch number beyond this is in milliseconds, not seconds: pydantic's rule."""


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


class _Refusal(NamedTuple):
    row: int
    reason: Reason
    detail: str
    path: str


class Decoder:
    """Decodes the messages of one event type's topic."""

    def __init__(self, event: type[Event]) -> None:
        self.spec: EventSpec = event.spec()
        self._event = event
        self._schema = log_schema(self.spec)
        self._names = [column.name for column in self.spec.columns]
        self._fast = fast_decoder(event)

    def decode(self, batch: Batch) -> Decoded:
        """Every message is an event of the table or one rejection; never an exception for what stands in a message."""
        rows, events, refusals = self._events(batch.values)
        columns, kept = self._columns(rows, events, refusals)
        index = np.array(kept, np.int64)
        table = self._table(batch, index, columns)
        table = self._check_time(table, index, batch, refusals)
        refusals.sort(key=lambda refusal: refusal.row)
        return Decoded(table, [_rejection(batch, refusal) for refusal in refusals])

    def _events(self, values: list[bytes | None]) -> tuple[list[int], list[Any], list[_Refusal]]:
        rows: list[int] = []
        events: list[Any] = []
        slow: list[int] = []
        if self._fast is None:
            slow = list(range(len(values)))
        else:
            fast = self._fast
            for row, value in enumerate(values):
                try:
                    events.append(fast(value))
                    rows.append(row)
                except (ValueError, TypeError, OverflowError):
                    slow.append(row)
        refusals: list[_Refusal] = []
        for row in slow:
            answer = self._explain(row, values[row])
            if isinstance(answer, _Refusal):
                refusals.append(answer)
            else:
                rows.append(row)
                events.append(answer)
        if slow and events:
            order = sorted(range(len(rows)), key=rows.__getitem__)
            rows, events = [rows[i] for i in order], [events[i] for i in order]
        return rows, events, refusals

    def _explain(self, row: int, value: bytes | None) -> Event | _Refusal:
        """The event, where only pydantic can read it; otherwise why it is none."""
        if not value:
            return _Refusal(row, Reason.EMPTY, "the message has no bytes", "")
        try:
            return self._event.model_validate_json(value)
        except ValidationError as error:
            return _refusal_of(row, error.errors(include_url=False, include_context=False)[0], self.spec.time)

    def _columns(
        self, rows: list[int], events: list[Any], refusals: list[_Refusal]
    ) -> tuple[list[pa.Array], list[int]]:
        try:
            return [self._column(name, events) for name in self._names], rows
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            return self._columns_one_by_one(rows, events, refusals)

    def _columns_one_by_one(
        self, rows: list[int], events: list[Any], refusals: list[_Refusal]
    ) -> tuple[list[pa.Array], list[int]]:
        """Some value fits no column (an integer of a list beyond 64 bits, say): finds whose."""
        kept: list[int] = []
        good: list[Any] = []
        for row, event in zip(rows, events, strict=True):
            refusal = self._misfit(row, event)
            if refusal is None:
                kept.append(row)
                good.append(event)
            else:
                refusals.append(refusal)
        return [self._column(name, good) for name in self._names], kept

    def _misfit(self, row: int, event: Any) -> _Refusal | None:
        for name in self._names:
            try:
                self._column(name, [event])
            except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
                reason = Reason.BAD_TIME if name == self.spec.time else Reason.BAD_VALUE
                return _Refusal(row, reason, str(error)[:DETAIL_CHARACTERS_MAX], name)
        return None

    def _column(self, name: str, events: list[Any]) -> pa.Array:
        field = self._schema.field(name)
        values = list(map(attrgetter(name), events))
        if pa.types.is_timestamp(field.type):
            values = _instants(values)
        elif values and hasattr(values[0], "value"):
            values = [value.value for value in values]
        return _without_negative_zero(pa.array(values, field.type))

    def _table(self, batch: Batch, index: Ints, columns: list[pa.Array]) -> pa.Table:
        log = [
            pa.array(batch.partitions[index].astype(np.int32)),
            pa.array(batch.offsets[index]),
            pa.array(batch.timestamps_us[index]).cast(pa.timestamp("us")),
            pa.array([batch.keys[row] for row in index.tolist()], pa.binary()),
        ]
        return pa.Table.from_arrays(columns + log, schema=self._schema)

    def _check_time(self, table: pa.Table, index: Ints, batch: Batch, refusals: list[_Refusal]) -> pa.Table:
        time = table[self.spec.time].cast(pa.int64()).to_numpy()
        outside = (time < TIME_MIN_US) | (time > TIME_MAX_US)
        ahead = ~outside & (time - batch.timestamps_us[index] > self.spec.max_future_us)
        if not (outside | ahead).any():
            return table
        for at in np.flatnonzero(outside).tolist():
            detail = "an event's instant lies in 1700 to 2250"
            refusals.append(_Refusal(int(index[at]), Reason.BAD_TIME, detail, self.spec.time))
        for at in np.flatnonzero(ahead).tolist():
            seconds = (int(time[at]) - int(batch.timestamps_us[index[at]])) / 1e6
            detail = f"{seconds:.0f} s ahead of the broker's clock; max_future is {self.spec.max_future_us / 1e6:.0f} s"
            refusals.append(_Refusal(int(index[at]), Reason.FUTURE, detail, self.spec.time))
        return table.filter(pa.array(~(outside | ahead)))


def _instants(values: list[Any]) -> list[datetime | None]:
    """Aware ones become naive UTC, epoch numbers instants."""
    return [
        value if value is None or (type(value) is datetime and value.tzinfo is None) else _instant(value)
        for value in values
    ]


def _instant(value: datetime | int) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if abs(value) > MILLISECONDS_BEYOND:
        return EPOCH + timedelta(milliseconds=value)
    return EPOCH + timedelta(seconds=value)


def _without_negative_zero(array: pa.Array) -> pa.Array:
    """−0.0 becomes 0.0 at the door, inside lists and maps too."""
    type_ = array.type
    if pa.types.is_floating(type_):
        return pc.add(array, 0.0)
    if pa.types.is_list(type_) and pa.types.is_floating(type_.value_type):
        return pa.ListArray.from_arrays(array.offsets, pc.add(array.values, 0.0), type=type_, mask=pc.is_null(array))
    if pa.types.is_map(type_) and pa.types.is_floating(type_.item_type):
        items = pc.add(array.items, 0.0)
        return pa.MapArray.from_arrays(array.offsets, array.keys, items, type=type_, mask=pc.is_null(array))
    return array


_MISSING = frozenset({"missing"})
_UNDECODABLE = frozenset({"json_invalid", "json_type", "model_type", "model_attributes_type"})
_VALUES = frozenset(
    {
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "multiple_of",
        "string_too_short",
        "string_too_long",
        "string_pattern_mismatch",
        "too_short",
        "too_long",
        "literal_error",
        "enum",
        "value_error",
        "assertion_error",
        "decimal_max_digits",
        "decimal_max_places",
        "decimal_whole_digits",
        "int_parsing_size",
    }
)


def _refusal_of(row: int, error: ErrorDetails, time: str) -> _Refusal:
    kind, path = error["type"], _path(error["loc"])
    detail = error["msg"][:DETAIL_CHARACTERS_MAX]
    if kind in _MISSING:
        reason = Reason.MISSING_FIELD
    elif kind in _UNDECODABLE:
        reason = Reason.UNDECODABLE
    elif path == time and error["input"] is not None:
        reason = Reason.BAD_TIME
    else:
        reason = Reason.BAD_VALUE if kind in _VALUES else Reason.WRONG_TYPE
    return _Refusal(row, reason, detail, path)


def _path(location: Iterable[int | str]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _rejection(batch: Batch, refusal: _Refusal) -> Rejection:
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
