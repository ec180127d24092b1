"""Avro messages -> columns, many at once: for writers' schemas that are flat and events whose checks are plain.

What is read here the readers of single messages would read the same; a message that is damaged, or that a constraint
refuses, is left to them, and so is every schema and event that isn't as plain as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from enum import Enum
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args, get_origin

import annotated_types
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AliasPath
from pydantic.fields import FieldInfo

from schemas.event import Event, arrow_schema
from schemas.formats.avro_run import Rows, Run
from schemas.formats.fast import checked_alike, has_own_code, keys_of, opened
from schemas.instants import EPOCH_MS_MAX, EPOCH_MS_MIN, SECONDS_MAX

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
_FITS = {
    ("int64", int): pa.int64(),
    ("int64", float): pa.float64(),
    ("int64", datetime): pa.timestamp("us"),
    ("float64", float): pa.float64(),
    ("bool", bool): pa.bool_(),
    ("string", str): pa.string(),
    ("bytes", bytes): pa.binary(),
    ("timestamp", datetime): pa.timestamp("us"),
    ("date", date): pa.date32(),
}
"""What a column of a Python type takes, without a look at single values."""
_CHECKS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    annotated_types.Gt: ("gt", pc.greater),
    annotated_types.Ge: ("ge", pc.greater_equal),
    annotated_types.Lt: ("lt", pc.less),
    annotated_types.Le: ("le", pc.less_equal),
    annotated_types.MinLen: ("min_length", lambda array, n: pc.greater_equal(pc.utf8_length(array), n)),
    annotated_types.MaxLen: ("max_length", lambda array, n: pc.less_equal(pc.utf8_length(array), n)),
}

_DEFAULTS = (bool, int, float, str, bytes, datetime, date)

ReadField = Callable[[Run, Rows], pa.Array]
Check = Callable[[pa.Array], Any]
"""True for each value that a constraint lets pass; null for null."""


class _NotPlain(Exception):
    """A schema or an event that is left to the readers of single messages."""


class Field(NamedTuple):
    """A field of a writer's schema: how it is read, as what (`kind`), and whether it may be null."""

    name: str
    read: ReadField
    kind: str
    nullable: bool


class Target(NamedTuple):
    """A column of the event: from which field it comes, or which default holds; and what is checked."""

    source: str | None
    default: Any
    nullable: bool
    type: pa.DataType
    checks: tuple[Check, ...]


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
        columns = [self._column(target, read, run, rows) for target in self.targets]
        good = run.good()
        kept = pa.array(good)
        return [column.filter(kept) for column in columns], good

    def _column(self, target: Target, read: dict[str, pa.Array], run: Run, rows: Rows) -> pa.Array:
        if target.source is None:
            return pa.array([target.default], target.type).take(pa.array(np.zeros(len(rows), np.int8)))
        array = read[target.source]
        if target.type == pa.timestamp("us") and array.type == pa.int64():
            array = _epochs(array, run, rows)
        array = array.cast(target.type, safe=False)
        if not target.nullable:
            run.refuse(rows, _is_true(array.is_null()))
        if pa.types.is_floating(array.type):
            run.refuse(rows, ~_is_true(pc.fill_null(pc.is_finite(array), True)))
            array = pc.add(array, 0.0)
        for check in target.checks:
            run.refuse(rows, ~_is_true(pc.fill_null(check(array), True)))
        return array


def column_reader(event: type[Event], schema: Any, names: dict[str, Any]) -> ColumnReader | None:
    """None where a message must be read by itself. `schema`: a parsed one of a record; `names`: the types it names."""
    if has_own_code(event):
        return None
    try:
        fields = tuple(_field(field["name"], field["type"], names) for field in schema["fields"])
        by_name = {field.name: field for field in fields}
        types = arrow_schema(event.spec())
        targets = tuple(_target(name, field, types.field(name), by_name) for name, field in event.model_fields.items())
    except _NotPlain:
        return None
    return ColumnReader(fields, targets)


def _field(name: str, type_: Any, names: dict[str, Any]) -> Field:
    if isinstance(type_, list):
        # A union within a field alone: Avro has none within another.
        branches = [_field(name, branch, names) for branch in type_]
        others = [branch for branch in branches if branch.kind != "null"]
        if len(branches) != 2 or len(others) != 1:
            raise _NotPlain(name)
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
        raise _NotPlain(kind)
    logical = str(type_.get("logicalType"))
    if kind == "long" and logical.removeprefix("local-").startswith("timestamp-"):
        return _timestamps(logical.rpartition("-")[2]), "timestamp"
    if kind == "int" and logical == "date":
        return _dates, "date"
    # A decimal's bytes are no column of bytes.
    return _READS[kind], "decimal" if logical == "decimal" else _SCALARS[kind]


def _target(name: str, field: FieldInfo, arrow: pa.Field, fields: dict[str, Field]) -> Target:
    type_, metadata, nullable = opened(field)
    checks: list[Check] = []
    if get_origin(type_) is Literal or (isinstance(type_, type) and issubclass(type_, Enum)):
        values = get_args(type_) if get_origin(type_) is Literal else tuple(each.value for each in type_)
        checks.append(_is_one_of(pa.array(values, arrow.type)))
        type_ = type(values[0])
    if not checked_alike(type_, metadata) or any(type(each) not in _CHECKS for each in metadata):
        raise _NotPlain(name)
    checks += [_bound(each) for each in metadata]
    source = next((key for key in _keys(name, field) if key in fields), None)
    if source is None:
        return Target(None, _default(name, field), nullable, arrow.type, ())
    if fields[source].kind != "null" and _FITS.get((fields[source].kind, type_)) != arrow.type:
        raise _NotPlain(name)
    return Target(source, None, nullable, arrow.type, tuple(checks))


def _default(name: str, field: FieldInfo) -> Any:
    default = field.default.value if isinstance(field.default, Enum) else field.default
    if default is not None and not isinstance(default, _DEFAULTS):
        raise _NotPlain(name)
    if isinstance(default, float) and not isfinite(default):
        raise _NotPlain(name)
    # As everywhere: −0.0 becomes 0.0.
    return default + 0.0 if isinstance(default, float) else default


def _keys(name: str, field: FieldInfo) -> list[str]:
    keys = keys_of(name, field)
    if any(isinstance(key, AliasPath) for key in keys):
        raise _NotPlain(name)
    return [str(key) for key in keys]


def _bound(metadata: Any) -> Check:
    attribute, compare = _CHECKS[type(metadata)]
    bound = getattr(metadata, attribute)
    return lambda array: compare(array, bound)


def _is_one_of(values: pa.Array) -> Check:
    return lambda array: pc.or_kleene(pc.is_in(array, values), array.is_null())


def _is_true(array: Any) -> npt.NDArray[np.bool_]:
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _epochs(array: pa.Array, run: Run, rows: Rows) -> pa.Array:
    """Epoch numbers, in milliseconds or seconds: pydantic's rule."""
    epochs = pc.fill_null(array, 0).to_numpy()
    outside = (epochs < EPOCH_MS_MIN) | (epochs > EPOCH_MS_MAX)
    run.refuse(rows, outside)
    epochs = np.where(outside, 0, epochs)
    microseconds = epochs * np.where(np.abs(epochs) > SECONDS_MAX, 1_000, 1_000_000)
    return pa.array(microseconds, mask=_is_true(array.is_null()))


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
