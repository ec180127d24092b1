"""Events whose schema stands in a registry. A message: 0, the schema's number (4 bytes, big-endian), the record.

The record is read by the schema that its writer had, then validated as any other: what the event's class says of names,
types and defaults holds, so producers of several versions may write to one topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.event import Event
from schemas.formats.coerce import Record, record_coercer
from schemas.formats.fast import fast_path
from schemas.formats.read import Block, Read, read_events
from schemas.formats.refusal import Misread, Refusal
from schemas.registry import CACHED_MAX, UNKNOWN_FOR_S, RegisteredSchema, Registry
from schemas.rejection import Reason

HEAD_BYTES = 5
MESSAGES_MIN = 200
"""Of fewer messages of one schema the calls of NumPy cost more than they save."""
RUN_BYTES_MAX = 4 << 20
"""Text is gathered with some 24 bytes of indexes for each of its own; more is read in pieces."""
HEADS_MAX = 16
"""Schemas of one batch that are read as columns: those with most messages. A topic has a few."""


class Columns(Protocol):
    """Reads many messages of one schema at once."""

    def read(self, values: Sequence[bytes]) -> tuple[list[pa.Array], npt.NDArray[np.bool_]] | None:
        """The columns of the messages that are good, and which those are; None where all are left to be read singly."""
        ...


class Writer(NamedTuple):
    """Reads the messages of one schema."""

    read: Callable[[bytes], Record]
    """A whole message to its fields; raises Misread."""
    columns: Columns | None = None


class RegisteredReader:
    """Reads Avro and Protobuf."""

    def __init__(self, event: type[Event], registry: Registry) -> None:
        spec = event.spec()
        self._time = spec.time
        self._format = spec.format
        self._registry = registry
        self._compile = _compiler(event)
        self._writers: dict[bytes, Writer] = {}
        self._unreadable: dict[bytes, tuple[str, float]] = {}
        self._fast = fast_path(event)
        # Bytes are bytes here: text is no base64 of them.
        self._convert = self._fast and partial(msgspec.convert, type=self._fast.struct, builtin_types=(bytes,))
        coerced, validate = record_coercer(event), event.model_validate
        self._explain: Callable[[Record], Event] = lambda record: validate(coerced(record))

    def read(self, values: Sequence[bytes]) -> Read:
        """See `Reader`."""
        block, left = self._read_columns(values)
        records: list[Record] = []
        rows: list[int] = []
        refusals: list[Refusal] = []
        for row in left:
            value = values[row]
            try:
                records.append(self._writer(value[:HEAD_BYTES]).read(value))
                rows.append(row)
            except Misread as misread:
                refusals.append(self._refusal(row, misread))
        read = read_events(records, self._fast, self._convert, self._explain, self._time)
        refusals += [refusal._replace(row=rows[refusal.row]) for refusal in read.refusals]
        return Read([rows[row] for row in read.rows], read.events, read.lists, refusals, block)

    def _read_columns(self, values: Sequence[bytes]) -> tuple[Block | None, Sequence[int]]:
        """What can be read as columns, and the places of all other messages."""
        parts: list[Block] = []
        if len(values) >= MESSAGES_MIN:
            heads = [value[:HEAD_BYTES] for value in values]
            for head, count in Counter(heads).most_common(HEADS_MAX):
                if count >= MESSAGES_MIN:
                    rows = np.array([row for row, each in enumerate(heads) if each == head], np.int64)
                    parts += self._blocks(head, rows, values)
        if not parts:
            return None, range(len(values))
        block = _together(parts)
        left = np.ones(len(values), np.bool_)
        left[block.rows] = False
        return block, np.flatnonzero(left).tolist()

    def _blocks(self, head: bytes, rows: npt.NDArray[np.int64], values: Sequence[bytes]) -> Iterator[Block]:
        try:
            columns = self._writer(head).columns
        except Misread:
            return
        if columns is None:
            return
        runs = np.cumsum([len(values[row]) for row in rows.tolist()]) // RUN_BYTES_MAX
        for some in np.split(rows, np.flatnonzero(np.diff(runs)) + 1):
            read = columns.read([values[row] for row in some.tolist()])
            if read is not None and read[1].any():
                yield Block(some[read[1]], read[0])

    def _refusal(self, row: int, misread: Misread) -> Refusal:
        refusal = misread.refusal(row)
        is_time = misread.reason is Reason.BAD_VALUE and misread.path == self._time
        return refusal._replace(reason=Reason.BAD_TIME) if is_time else refusal

    def _writer(self, head: bytes) -> Writer:
        """What reads the messages with this head; raises Misread, or NotReady where the registry can't be asked."""
        writer = self._writers.get(head)
        if writer is not None:
            return writer
        if len(head) < HEAD_BYTES or head[0] != 0:
            raise Misread("the message does not begin with a 0 and the number of its schema")
        known = self._unreadable.get(head)
        if known is not None and monotonic() < known[1]:
            raise Misread(known[0], reason=Reason.UNKNOWN_SCHEMA)
        try:
            writer = self._compiled(int.from_bytes(head[1:], "big"))
        except Misread as misread:
            _keep(self._unreadable, head, (misread.detail, monotonic() + UNKNOWN_FOR_S))
            raise
        _keep(self._writers, head, writer)
        return writer

    def _compiled(self, schema_id: int) -> Writer:
        schema = self._registry.schema(schema_id, self._format)
        if schema is None:
            raise Misread(f"the schema registry has no schema {schema_id}", reason=Reason.UNKNOWN_SCHEMA)
        if schema.format != self._format:
            detail = f"schema {schema_id} is one of {schema.format}; the topic's format is {self._format}"
            raise Misread(detail, reason=Reason.UNKNOWN_SCHEMA)
        try:
            return self._compile(schema, self._registry)
        except Misread as misread:
            detail = f"schema {schema_id} can't be read: {misread.detail}"
            raise Misread(detail, reason=Reason.UNKNOWN_SCHEMA) from misread


def _together(parts: list[Block]) -> Block:
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    arrays = [
        pa.concat_arrays(columns).take(pa.array(order)) for columns in zip(*(p.arrays for p in parts), strict=True)
    ]
    return Block(rows[order], arrays)


def _compiler(event: type[Event]) -> Callable[[RegisteredSchema, Registry], Writer]:
    # One format's packages are no need of the other's.
    if event.spec().format == "avro":
        from schemas.formats.avro import compile_avro  # noqa: PLC0415

        return lambda schema, registry: Writer(*compile_avro(schema, registry, event))
    from schemas.formats.protobuf import ProtobufCompiler  # noqa: PLC0415

    compile_ = ProtobufCompiler(event).compile
    return lambda schema, registry: Writer(*compile_(schema, registry))


def _keep(cache: dict[bytes, Any], head: bytes, entry: Any) -> None:
    """Remembers, and forgets the oldest beyond CACHED_MAX."""
    cache[head] = entry
    if len(cache) > CACHED_MAX:
        del cache[next(iter(cache))]
