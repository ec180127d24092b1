"""Avro messages -> columns, many at once: for writers' schemas that are flat and events whose checks are plain.

What is read here the readers of single messages would read the same; a message that is damaged, or that a constraint
refuses, is left to them, and so is every schema and event that isn't as plain as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.event import Event
from schemas.formats.run import Rows, Run
from schemas.formats.targets import NotPlain, Target, targets_of
from schemas.instants import EPOCH_MS_MAX, EPOCH_MS_MIN

HEAD_BYTES = 5
DAYS_MIN, DAYS_MAX = (date.min - date(1970, 1, 1)).days, (date.max - date(1970, 1, 1)).days
_MICROSECONDS = {"millis": (1_000, 1), "micros": (1, 1), "nanos": (1, 1_000)}
"""By what a count is multiplied and divided."""
_SCALARS = {
    "null": "null",
    "boolean": "bool",
    "int": "int64",
    "long": "int64",
    "float": "float64",
    "double": "float64",
    "string": "string",
    "bytes": "bytes",
}
ReadField = Callable[[Run, Rows], pa.Array]


class Field(NamedTuple):
    """A field of a writer's schema: how it is read, as what (`kind`), and whether it may be null."""

    name: str
    read: ReadField
    kind: str
    nullable: bool


class ColumnReader(NamedTuple):
    """Reads the messages of one writer's schema for one event."""

    fields: tuple[Field, ...]
    targets: tuple[Target, ...]

    def read(self, values: Sequence[bytes]) -> tuple[list[pa.Array], npt.NDArray[np.bool_]] | None:
        """The columns of the messages that are good, and which those are; None where all are left to be read singly."""
        run = Run(values, HEAD_BYTES)
        rows = run.all_rows()
        try:
            read = {field.name: field.read(run, rows) for field in self.fields}
        except pa.ArrowInvalid:  # text that is none, in one of them
            return None
        columns = [target.column(read, run) for target in self.targets]
        good = run.good()
        kept = pa.array(good)
        return [column.filter(kept) for column in columns], good


def column_reader(event: type[Event], schema: Any, names: dict[str, Any]) -> ColumnReader | None:
    """None where a message must be read by itself. `schema`: a parsed one of a record; `names`: the types it names."""
    try:
        fields = tuple(_field(field["name"], field["type"], names) for field in schema["fields"])
        return ColumnReader(fields, targets_of(event, {field.name: field.kind for field in fields}))
    except NotPlain:
        return None


def _field(name: str, type_: Any, names: dict[str, Any]) -> Field:
    if isinstance(type_, list):
        # A union within a field alone: Avro has none within another.
        branches = [_field(name, branch, names) for branch in type_]
        others = [branch for branch in branches if branch.kind != "null"]
        if len(branches) != 2 or len(others) != 1:
            raise NotPlain(name)
        (other,) = others
        return Field(name, _optional(other.read, branches.index(other)), other.kind, True)
    read, kind = _reader(type_, names)
    return Field(name, read, kind, kind == "null")


def _reader(type_: Any, names: dict[str, Any]) -> tuple[ReadField, str]:
    if isinstance(type_, str):
        type_ = names.get(type_, {"type": type_})
    kind = type_["type"]
    if isinstance(kind, dict):
        return _reader(kind, names)
    if kind == "enum":
        return _enum(type_["symbols"]), "string"
    if kind not in _SCALARS:
        raise NotPlain(kind)
    logical = str(type_.get("logicalType"))
    if kind == "long" and logical.removeprefix("local-").startswith("timestamp-"):
        return _timestamps(logical.rpartition("-")[2]), "timestamp"
    if kind == "int" and logical == "date":
        return _dates, "date"
    # A decimal's bytes are no column of bytes.
    return _READS[kind], "decimal" if logical == "decimal" else _SCALARS[kind]


def _optional(read: ReadField, branch: int) -> ReadField:
    def optional(run: Run, rows: Rows) -> pa.Array:
        found = run.longs(rows)
        run.refuse(rows, (found != 0) & (found != 1))
        there = found == branch
        places = np.cumsum(there) - 1
        return read(run, rows[there]).take(pa.array(places, mask=~there))

    return optional


def _enum(symbols: list[str]) -> ReadField:
    names = pa.array(symbols, pa.string())

    def enum(run: Run, rows: Rows) -> pa.Array:
        indexes = run.longs(rows)
        outside = (indexes < 0) | (indexes >= len(symbols))
        run.refuse(rows, outside)
        return names.take(pa.array(np.where(outside, 0, indexes)))

    return enum


def _timestamps(unit: str) -> ReadField:
    times, per = _MICROSECONDS[unit]

    def timestamps(run: Run, rows: Rows) -> pa.Array:
        counts = run.longs(rows)
        low, high = (bound * 1_000 * per // times for bound in (EPOCH_MS_MIN, EPOCH_MS_MAX))
        outside = (counts < low) | (counts > high)
        run.refuse(rows, outside)
        return pa.array(np.where(outside, 0, counts) * times // per).cast(pa.timestamp("us"))

    return timestamps


def _dates(run: Run, rows: Rows) -> pa.Array:
    days = run.longs(rows)
    outside = (days < DAYS_MIN) | (days > DAYS_MAX)
    run.refuse(rows, outside)
    return pa.array(np.where(outside, 0, days).astype(np.int32)).cast(pa.date32())


def _floats(size: int) -> ReadField:
    return lambda run, rows: pa.array(run.bytes_of(rows, size).view(f"<f{size}")[:, 0].astype(np.float64))


def _booleans(run: Run, rows: Rows) -> pa.Array:
    byte = run.bytes_of(rows, 1)[:, 0]
    run.refuse(rows, byte > 1)
    return pa.array(byte == 1)


def _texts(type_: pa.DataType) -> ReadField:
    return lambda run, rows: run.binary(*run.slices(rows, run.longs(rows)), type_)


_READS: dict[str, ReadField] = {
    "null": lambda run, rows: pa.nulls(len(rows)),
    "boolean": _booleans,
    "int": lambda run, rows: pa.array(run.longs(rows)),
    "long": lambda run, rows: pa.array(run.longs(rows)),
    "float": _floats(4),
    "double": _floats(8),
    "string": _texts(pa.string()),
    "bytes": _texts(pa.binary()),
}
