"""Cells of entries from where they come: events (offline) or the bytes in the HASHes of online rows."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import (
    DIGEST_BYTES,
    ORDER_BYTES,
    VARIABLE_SIZE,
    WORDS,
    Layout,
    input_type,
    is_entries,
    is_fixed,
    layout,
    record_words,
    value_type,
    word_offsets,
)
from features.deltas import int64_of, value_bits
from features.entries import BINNED, EntryRows, entry_rows, labels_of
from features.lists import Entries, Fixed, Source
from features.plan import Cell, CellKind, Input
from features.ranges import Ints
from features.records import DECODE, event_state, split, text_state
from schemas.row import WORD_BYTES
from schemas.types import arrow_type, map_types

_LENGTH = struct.Struct("<I")
_COUNTED = (CellKind.TOP_K, CellKind.BOTTOM_K, CellKind.FREQUENCIES, CellKind.BUCKETS, CellKind.BINS)


def of_events(inputs: tuple[Input, ...], cell: Cell, records: pa.Table, element: str | None = None) -> Source:
    """Each event as the state of a cell of its own."""
    if not is_entries(cell):
        return Fixed(*event_state(cell, records))
    rows = entry_rows(inputs, cell, records, element)
    single = value_type(input_type(inputs, cell, element))
    starts = np.searchsorted(rows.parent, np.arange(len(records) + 1))
    if cell.kind in (CellKind.BY, CellKind.ELEMENTS):
        return _outer_of_events(inputs, cell, records, element, rows, starts, single)
    number = rows.ranks if cell.kind is CellKind.REGISTERS else None
    if cell.kind in _COUNTED:
        number = np.ones(len(rows.parent), np.int64)
    order: tuple[Ints, ...] = ()
    payload, pool = None, None
    if cell.kind in (CellKind.FIRST_K, CellKind.LAST_K, CellKind.LAST_K_DISTINCT):
        parent = pa.array(rows.parent)
        order = (*(int64_of(records[name].take(parent)) for name in ("t", "position", "offset")), rows.index)
    if cell.kind in (CellKind.FIRST_K, CellKind.LAST_K):
        pool = rows.values if single in ("string", "bytes") else None
        payload = np.arange(len(rows.parent)) if pool is not None else value_bits(rows.values)
        return Entries(single, starts, np.zeros(len(rows.parent), np.int64), None, order, payload, pool)
    # Digests stand for no value: they are only counted.
    keys, labels = _ranked(rows.keys, "bytes" if cell.kind is CellKind.DISTINCT else single)
    return Entries(single, starts, keys, number, order, labels=labels)


def _outer_of_events(
    inputs: tuple[Input, ...],
    cell: Cell,
    records: pa.Table,
    element: str | None,
    rows: EntryRows,
    starts: Ints,
    single: str,
) -> Entries:
    inside = records.select([name for name in records.column_names if name not in ("element", "key")])
    inside = inside.take(pa.array(rows.parent)).append_column("element", rows.values)
    inner = tuple(of_events(inputs, each, inside, single) for each in cell.inner)
    if cell.kind is CellKind.ELEMENTS:
        return Entries(single, starts, rows.index, inner=inner)
    digests, _ = _ranked(rows.keys, "bytes")
    labels = labels_of(rows, inputs, cell, records, element)
    return Entries(single, starts, digests, labels=_first_of_each(digests, labels), inner=inner)


def of_bytes(inputs: tuple[Input, ...], cell: Cell, payloads: list[bytes], element: str | None = None) -> Source:
    """Cells of variable size, one of each payload."""
    type_name = input_type(inputs, cell, element)
    if not is_entries(cell):
        return Fixed(*text_state(cell.kind, payloads, type_name))
    single = value_type(type_name)
    shape = layout(cell, single)
    parsed = _fixed_parts if VARIABLE_SIZE not in (shape.key_bytes, shape.payload_bytes) else _variable_parts
    starts, keys, rest = parsed(payloads, shape)
    if cell.kind in (CellKind.BY, CellKind.ELEMENTS):
        return _outer_of_bytes(inputs, cell, starts, keys, rest, single, type_name)
    if cell.kind in (CellKind.FIRST_K, CellKind.LAST_K):
        pool = _texts(rest, single) if single in ("string", "bytes") else None
        payload = np.arange(len(keys)) if pool is not None else _words(rest)
        return Entries(single, starts, np.zeros(len(keys), np.int64), None, _orders(keys), payload, pool)
    number: Ints | None = None
    order: tuple[Ints, ...] = ()
    if cell.kind in _COUNTED:
        number = _words(rest)
    elif cell.kind is CellKind.REGISTERS:
        number = _matrix(rest, 1)[:, 0].astype(np.int64)
    elif cell.kind is CellKind.LAST_K_DISTINCT:
        order = _orders(rest)
    codes, labels = _codes(cell, keys, shape, single)
    return Entries(single, starts, codes, number, order, labels=labels)


def _outer_of_bytes(
    inputs: tuple[Input, ...],
    cell: Cell,
    starts: Ints,
    keys: list[bytes],
    payloads: list[bytes],
    single: str,
    type_name: str,
) -> Entries:
    size = (record_words(cell.inner) - 1) * WORD_BYTES
    variable = [n for n, each in enumerate(cell.inner) if not is_fixed(each)]
    labels, words, more = [], [], []
    for payload in payloads:
        (length,) = _LENGTH.unpack_from(payload)
        at = _LENGTH.size + length
        labels.append(payload[_LENGTH.size : at])
        words.append(payload[at : at + size])
        more.append(split(payload[at + size :], len(variable)))
    table = np.frombuffer(b"".join(words), np.uint64).reshape(len(payloads), size // WORD_BYTES)
    inner: list[Source] = []
    for n, (each, at_word) in enumerate(zip(cell.inner, word_offsets(cell.inner), strict=True)):
        if at_word is not None:
            columns = table[:, at_word - 1 : at_word - 1 + WORDS[each.kind]]
            inner.append(Fixed(DECODE[each.kind](np.ascontiguousarray(columns)), None))
        else:
            inner.append(of_bytes(inputs, each, [parts[variable.index(n)] for parts in more], single))
    if cell.kind is CellKind.ELEMENTS:
        codes = _matrix(keys, 2).copy().view(">u2")[:, 0].astype(np.int64)
        return Entries(single, starts, codes, inner=tuple(inner))
    codes, _ = _ranked(pa.array(keys, pa.binary()), "bytes")
    types = map_types(type_name)
    names = _from_canonical(labels, types[0] if types else type_name)
    return Entries(single, starts, codes, labels=_first_of_each(codes, names), inner=tuple(inner))


def _ranked(keys: Ints | pa.Array, single: str) -> tuple[Ints, pa.Array | None]:
    """Keys as integers in their order, and, where they are bytes, the values they stand for by rank."""
    if not isinstance(keys, pa.Array):
        return keys, None
    distinct = keys.unique()
    distinct = distinct.take(pc.sort_indices(distinct))
    ranks: Ints = pc.index_in(keys, distinct).to_numpy(zero_copy_only=False).astype(np.int64)
    return ranks, distinct.cast(pa.string()) if single == "string" else distinct


def _first_of_each(codes: Ints, labels: pa.Array) -> pa.Array:
    """For each code 0, 1, … the label of an entry that has it."""
    _, first = np.unique(codes, return_index=True)
    return labels.take(pa.array(first))


def _codes(cell: Cell, keys: list[bytes], shape: Layout, single: str) -> tuple[Ints, pa.Array | None]:
    if cell.kind is CellKind.BUCKETS:
        return _matrix(keys, 4).copy().view(">u4")[:, 0].astype(np.int64) - (1 << 31), None
    if cell.kind in BINNED:
        return _matrix(keys, 2).copy().view(">u2")[:, 0].astype(np.int64), None
    if shape.key_bytes == WORD_BYTES:
        return _unbiased(_matrix(keys, WORD_BYTES)), None
    if shape.key_bytes == DIGEST_BYTES:
        return _ranked(pa.array(keys, pa.binary()), "bytes")[0], None
    return _ranked(pa.array(keys, pa.binary()), single)


def _fixed_parts(payloads: list[bytes], shape: Layout) -> tuple[Ints, list[bytes], list[bytes]]:
    size = shape.key_bytes + shape.payload_bytes
    starts = np.concatenate(([0], np.cumsum([len(payload) // size for payload in payloads]))).astype(np.int64)
    data = b"".join(payloads)
    at = range(0, len(data), size)
    return starts, [data[i : i + shape.key_bytes] for i in at], [data[i + shape.key_bytes : i + size] for i in at]


def _variable_parts(payloads: list[bytes], shape: Layout) -> tuple[Ints, list[bytes], list[bytes]]:
    keys: list[bytes] = []
    rest: list[bytes] = []
    counts = []
    for payload in payloads:
        at, before = 0, len(keys)
        while at < len(payload):
            for parts, size in ((keys, shape.key_bytes), (rest, shape.payload_bytes)):
                if size == VARIABLE_SIZE:
                    (size,) = _LENGTH.unpack_from(payload, at)  # noqa: PLW2901 - the size stands in the bytes
                    at += _LENGTH.size
                parts.append(payload[at : at + size])
                at += size
        counts.append(len(keys) - before)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64), keys, rest


def _matrix(parts: list[bytes], size: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), size)


def _words(parts: list[bytes]) -> Ints:
    return np.frombuffer(b"".join(parts), "<i8").astype(np.int64)


def _unbiased(rows: npt.NDArray[np.uint8]) -> Ints:
    words = np.ascontiguousarray(rows).view(">u8")[:, 0].astype(np.uint64)
    return (words ^ np.uint64(1 << 63)).view(np.int64)


def _orders(parts: list[bytes]) -> tuple[Ints, ...]:
    rows = _matrix(parts, ORDER_BYTES)
    index = np.ascontiguousarray(rows[:, 24:]).view(">u4")[:, 0].astype(np.int64)
    return (*(_unbiased(rows[:, at : at + 8]) for at in (0, 8, 16)), index)


def _texts(parts: list[bytes], type_name: str) -> pa.Array:
    return pa.array(parts, pa.binary()).cast(arrow_type(type_name))


def _from_canonical(labels: list[bytes], type_name: str) -> pa.Array:
    """The values whose canonical bytes these are."""
    if type_name in ("string", "bytes"):
        return _texts(labels, type_name)
    words = _words(labels)
    if type_name == "bool":
        return pa.array(words != 0)
    if type_name == "date":
        return pa.array(words.astype(np.int32)).view(pa.date32())
    return pa.array(words.view(np.float64) if type_name == "float64" else words).view(arrow_type(type_name))
