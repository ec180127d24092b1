"""Events whose schema stands in a registry. A message: 0, the schema's number (4 bytes, big-endian), the record.

The record is read by the schema that its writer had, then validated as any other: what the event's class says of names,
types and defaults holds, so producers of several versions may write to one topic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from schemas.event import Event
from schemas.formats.coerce import Record, record_coercer
from schemas.formats.fast import fast_path
from schemas.formats.read import Read, read_events
from schemas.formats.refusal import Misread, Refusal
from schemas.registry import CACHED_MAX, UNKNOWN_FOR_S, RegisteredSchema, Registry
from schemas.rejection import Reason

HEAD_BYTES = 5
ReadRecord = Callable[[bytes], Record]
"""A whole message to its fields; raises Misread."""


class RegisteredReader:
    """Reads Avro and Protobuf."""

    def __init__(self, event: type[Event], registry: Registry) -> None:
        spec = event.spec()
        self._time = spec.time
        self._format = spec.format
        self._registry = registry
        self._compile = _compiler(event)
        self._readers: dict[bytes, ReadRecord] = {}
        self._unreadable: dict[bytes, tuple[str, float]] = {}
        self._fast = fast_path(event)
        # Bytes are bytes here: text is no base64 of them.
        self._convert = self._fast and partial(msgspec.convert, type=self._fast.struct, builtin_types=(bytes,))
        coerced, validate = record_coercer(event), event.model_validate
        self._explain: Callable[[Record], Event] = lambda record: validate(coerced(record))

    def read(self, values: Sequence[bytes]) -> Read:
        """See `Reader`."""
        records: list[Record] = []
        rows: list[int] = []
        refusals: list[Refusal] = []
        readers = self._readers
        for row, value in enumerate(values):
            try:
                head = value[:HEAD_BYTES]
                records.append((readers.get(head) or self._reader(head))(value))
                rows.append(row)
            except Misread as misread:
                refusals.append(self._refusal(row, misread))
        read = read_events(records, self._fast, self._convert, self._explain, self._time)
        refusals += [refusal._replace(row=rows[refusal.row]) for refusal in read.refusals]
        return Read([rows[row] for row in read.rows], read.events, read.lists, refusals)

    def _refusal(self, row: int, misread: Misread) -> Refusal:
        refusal = misread.refusal(row)
        is_time = misread.reason is Reason.BAD_VALUE and misread.path == self._time
        return refusal._replace(reason=Reason.BAD_TIME) if is_time else refusal

    def _reader(self, head: bytes) -> ReadRecord:
        """What reads the messages with this head; raises Misread, or NotReady where the registry can't be asked."""
        if len(head) < HEAD_BYTES or head[0] != 0:
            raise Misread("the message does not begin with a 0 and the number of its schema")
        known = self._unreadable.get(head)
        if known is not None and monotonic() < known[1]:
            raise Misread(known[0], reason=Reason.UNKNOWN_SCHEMA)
        try:
            reader = self._compiled(int.from_bytes(head[1:], "big"))
        except Misread as misread:
            _keep(self._unreadable, head, (misread.detail, monotonic() + UNKNOWN_FOR_S))
            raise
        _keep(self._readers, head, reader)
        return reader

    def _compiled(self, schema_id: int) -> ReadRecord:
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


def _compiler(event: type[Event]) -> Callable[[RegisteredSchema, Registry], ReadRecord]:
    # One format's packages are no need of the other's.
    if event.spec().format == "avro":
        from schemas.formats.avro import compile_avro  # noqa: PLC0415

        return compile_avro
    from schemas.formats.protobuf import ProtobufCompiler  # noqa: PLC0415

    return ProtobufCompiler(event).compile


def _keep(cache: dict[bytes, Any], head: bytes, entry: Any) -> None:
    """Remembers, and forgets the oldest beyond CACHED_MAX."""
    cache[head] = entry
    if len(cache) > CACHED_MAX:
        del cache[next(iter(cache))]
