"""Protobuf messages -> columns, many at once: for fields that stand once and are plain, and Timestamps.

A message is a row of (tag, value). Most producers write the fields in one order, so a step reads one tag's value of all
messages. What is read here the readers of single messages would read the same; whatever is rare is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from schemas.event import Event
from schemas.formats.run import Rows, Run, unzigzag
from schemas.formats.targets import NotPlain, Target, targets_of
from schemas.instants import EPOCH_MS_MAX, EPOCH_MS_MIN

Numbers = npt.NDArray[Any]
HEAD_BYTES = 6
"""The 0, the schema's number, and a 0 for the first message of its file: another one is read singly."""
STEPS_MAX = 200
"""Fields of a message, unknown and repeated ones included; a message with more is read singly."""
TAGS_MAX = 8
"""Different fields at one step: producers of one schema write in one order, or nearly so."""
TAG_MAX = (1 << 32) - 1
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
NANOS = 1_000_000_000
_LOW = np.uint64(0xFFFFFFFF)


def _int32(values: Numbers) -> Numbers:
    return (values & _LOW).astype(np.uint32).view(np.int32).astype(np.int64)


_VARINTS: dict[int, tuple[str, Callable[[Numbers], Numbers]]] = {
    FieldDescriptor.TYPE_INT64: ("int64", lambda values: values.astype(np.int64)),
    FieldDescriptor.TYPE_UINT64: ("int64", lambda values: values),
    FieldDescriptor.TYPE_INT32: ("int64", _int32),
    FieldDescriptor.TYPE_UINT32: ("int64", lambda values: (values & _LOW).astype(np.int64)),
    FieldDescriptor.TYPE_SINT64: ("int64", unzigzag),
    FieldDescriptor.TYPE_SINT32: ("int64", lambda values: unzigzag(values & _LOW)),
    FieldDescriptor.TYPE_BOOL: ("bool", lambda values: (values != 0).astype(np.int64)),
}
_FIXED: dict[int, tuple[str, str]] = {
    FieldDescriptor.TYPE_DOUBLE: ("float64", "<f8"),
    FieldDescriptor.TYPE_FLOAT: ("float64", "<f4"),
    FieldDescriptor.TYPE_FIXED64: ("int64", "<u8"),
    FieldDescriptor.TYPE_SFIXED64: ("int64", "<i8"),
    FieldDescriptor.TYPE_FIXED32: ("int64", "<u4"),
    FieldDescriptor.TYPE_SFIXED32: ("int64", "<i4"),
}
_TEXTS = {FieldDescriptor.TYPE_STRING: ("string", pa.string()), FieldDescriptor.TYPE_BYTES: ("bytes", pa.binary())}


class Store:
    """What was read of one field: numbers, or where text begins and how long it is."""

    def __init__(self, count: int, dtype: Any) -> None:
        self.numbers: Numbers = np.zeros(count, dtype)
        self.lengths: Numbers = np.zeros(count, np.int64)
        self.there = np.zeros(count, np.bool_)


Take = Callable[[Run, Rows, Store], None]
"""Reads the value that comes next of each of the rows."""
Finish = Callable[[Run, Store], pa.Array]


class Plan(NamedTuple):
    """How a field is read: under which tag, as what (`kind`), and what becomes of it."""

    name: str
    tag: int
    kind: str
    dtype: Any
    take: Take
    finish: Finish
    may_be_unset: bool


class ColumnReader(NamedTuple):
    """Reads the messages of one writer's schema for one event."""

    plans: tuple[Plan, ...]
    known: frozenset[int]
    targets: tuple[Target, ...]

    def read(self, values: Sequence[bytes]) -> tuple[list[pa.Array], npt.NDArray[np.bool_]] | None:
        """The columns of the messages that are good, and which those are; None where all are left to be read singly."""
        run = Run(values, HEAD_BYTES)
        rows = run.all_rows()
        run.refuse(rows, run.byte_before(rows) != 0)
        stores = _parse(run, self.plans, self.known)
        try:
            read = {plan.name: plan.finish(run, stores[plan.tag]) for plan in self.plans}
        except pa.ArrowInvalid:  # text that is none, in one of them
            return None
        unset = {plan.name for plan in self.plans if plan.may_be_unset}
        columns = [target.column(read, run, null_is_absent=target.source in unset) for target in self.targets]
        good = run.good()
        kept = pa.array(good)
        return [column.filter(kept) for column in columns], good


def column_reader(event: type[Event], descriptor: Descriptor) -> ColumnReader | None:
    """None where a message must be read by itself."""
    plans = [plan for field in descriptor.fields if (plan := _plan(field)) is not None]
    kinds: dict[str, str] = {field.name: "not plain" for field in descriptor.fields}
    kinds |= {plan.name: plan.kind for plan in plans}
    try:
        if any(field.is_required for field in descriptor.fields):
            raise NotPlain(descriptor.name)
        targets = targets_of(event, kinds)
    except NotPlain:
        return None
    return ColumnReader(tuple(plans), frozenset(field.number for field in descriptor.fields), targets)


def _parse(run: Run, plans: Sequence[Plan], known: frozenset[int]) -> dict[int, Store]:
    by_tag = {plan.tag: plan for plan in plans}
    stores = {plan.tag: Store(len(run.at), plan.dtype) for plan in plans}
    active = run.unfinished(run.all_rows())
    for _ in range(STEPS_MAX):
        if not len(active):
            return stores
        tags = run.varints(active)
        rest = active
        for _ in range(TAGS_MAX):
            if not len(rest):
                break
            mine = tags == tags[0]
            tag, some = int(tags[0]), rest[mine]
            if tag in by_tag:
                by_tag[tag].take(run, some, stores[tag])
                stores[tag].there[some] = True
            else:
                _skip(run, some, tag, known)
            rest, tags = rest[~mine], tags[~mine]
        run.bad[rest] = True
        active = run.unfinished(active)
    run.bad[active] = True
    return stores


def _skip(run: Run, rows: Rows, tag: int, known: frozenset[int]) -> None:
    """Passes over a field that the schema doesn't have; one that it has, and that isn't plain, is read singly."""
    number, wire = tag >> 3, tag & 7
    if number == 0 or tag > TAG_MAX or number in known:
        run.bad[rows] = True
    elif wire == VARINT:
        run.varints(rows)
    elif wire == LENGTH:
        run.slices(rows, run.varints(rows).astype(np.int64))
    elif wire in (FIXED64, FIXED32):
        run.bytes_of(rows, 8 if wire == FIXED64 else 4)
    else:
        run.bad[rows] = True


def _plan(field: FieldDescriptor) -> Plan | None:
    """None for a field that isn't plain: lists and maps, other messages, members of a oneof."""
    oneof = field.containing_oneof
    if field.is_repeated or (oneof is not None and len(oneof.fields) > 1):
        return None
    read = _read_enum(field.enum_type) if field.enum_type is not None else _read(field)
    if read is None:
        return None
    wire, kind, dtype, take, finish = read
    return Plan(field.name, field.number << 3 | wire, kind, dtype, take, _nullable(finish, field), field.has_presence)


_Read = tuple[int, str, Any, Take, Finish]


def _read(field: FieldDescriptor) -> _Read | None:
    if field.type in _VARINTS:
        kind, convert = _VARINTS[field.type]
        dtype = np.uint64 if field.type == FieldDescriptor.TYPE_UINT64 else np.int64
        return VARINT, kind, dtype, _take_varints(convert), _finish_unsigned if dtype is np.uint64 else _finish(kind)
    if field.type in _FIXED:
        kind, view = _FIXED[field.type]
        wire = FIXED64 if view.endswith("8") else FIXED32
        unsigned = view == "<u8"
        number: type = np.float64 if kind == "float64" else np.uint64 if unsigned else np.int64
        return wire, kind, number, _take_fixed(view), _finish_unsigned if unsigned else _finish(kind)
    if field.type in _TEXTS:
        kind, type_ = _TEXTS[field.type]
        return LENGTH, kind, np.int64, _take_text, lambda run, store: run.binary(store.numbers, store.lengths, type_)
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
        return LENGTH, "timestamp", np.int64, _take_timestamp, _finish_timestamp
    return None


def _read_enum(enum: EnumDescriptor) -> _Read | None:
    if enum.is_closed:
        return None
    numbers = np.array(sorted(enum.values_by_number), np.int64)
    names = pa.array([enum.values_by_number[number].name for number in numbers.tolist()], pa.string())

    def finish(run: Run, store: Store) -> pa.Array:
        places = np.minimum(np.searchsorted(numbers, store.numbers), len(numbers) - 1)
        run.refuse(run.all_rows(), numbers[places] != store.numbers)
        return names.take(pa.array(places))

    return VARINT, "string", np.int64, _take_varints(_int32), finish


def _nullable(finish: Finish, field: FieldDescriptor) -> Finish:
    if not field.has_presence:
        return finish
    return lambda run, store: pc.if_else(pa.array(store.there), finish(run, store), None)


def _take_varints(convert: Callable[[Numbers], Numbers]) -> Take:
    def take(run: Run, rows: Rows, store: Store) -> None:
        store.numbers[rows] = convert(run.varints(rows))

    return take


def _take_fixed(view: str) -> Take:
    size = int(view[2:])

    def take(run: Run, rows: Rows, store: Store) -> None:
        store.numbers[rows] = run.bytes_of(rows, size).view(view)[:, 0]

    return take


def _take_text(run: Run, rows: Rows, store: Store) -> None:
    lengths = run.varints(rows).astype(np.int64)
    store.numbers[rows], store.lengths[rows] = run.slices(rows, lengths)


def _take_timestamp(run: Run, rows: Rows, store: Store) -> None:
    # Of a message that stands twice Protobuf makes one: singly.
    run.refuse(rows, store.there[rows])
    inside = run.inside(*run.slices(rows, run.varints(rows).astype(np.int64)))
    parts = _parse(inside, _TIMESTAMP, frozenset({1, 2}))
    seconds, nanos = (parts[plan.tag].numbers for plan in _TIMESTAMP)
    wrong = (seconds * 1.0 < EPOCH_MS_MIN / 1_000) | (seconds * 1.0 > EPOCH_MS_MAX // 1_000)
    wrong |= (nanos < 0) | (nanos >= NANOS) | ~inside.good()
    run.refuse(rows, wrong)
    store.numbers[rows] = np.where(wrong, 0, seconds * 1_000_000 + nanos // 1_000)


def _finish(kind: str) -> Finish:
    type_ = pa.bool_() if kind == "bool" else None
    return lambda run, store: pa.array(store.numbers).cast(type_) if type_ else pa.array(store.numbers)


def _finish_unsigned(run: Run, store: Store) -> pa.Array:
    # Beyond 64 bits with a sign it fits no column: whoever reads it singly says so.
    run.refuse(run.all_rows(), store.numbers > np.uint64((1 << 63) - 1))
    return pa.array(store.numbers.astype(np.int64))


def _finish_timestamp(run: Run, store: Store) -> pa.Array:
    return pa.array(store.numbers).cast(pa.timestamp("us"))


def _number(name: str, number: int, convert: Callable[[Numbers], Numbers]) -> Plan:
    return Plan(name, number << 3, "int64", np.int64, _take_varints(convert), _finish("int64"), False)


_TIMESTAMP: tuple[Plan, ...] = (
    _number("seconds", 1, lambda values: values.astype(np.int64)),
    _number("nanos", 2, _int32),
)
