"""Cells of sorted entries: what a column of inputs adds to them, as a table with a row for each entry.

The fold (features/folding.py) groups these rows by tile and key, an offline read (features/lists.py) by query and key:
both start here, so that an entry is one thing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import INT64_MAX, INT64_MIN, input_type, value_type
from features.deltas import float64_of, int64_of, value_bits
from features.plan import ELEMENT, Cell, CellKind, Input
from features.ranges import Ints
from features.sketches import ELEMENTS_MAX, bucket_keys, hash_ranks
from features.sql import input_column
from schemas.types import decimal_scale, element_type, is_decimal, map_types

Bools = npt.NDArray[np.bool_]
SIGN = np.int64(INT64_MIN)
BINNED = (CellKind.REGISTERS, CellKind.BUCKETS, CellKind.BINS, CellKind.ELEMENTS)
"""Kinds whose keys are small numbers of ours, not values."""


@dataclass(frozen=True)
class EntryRows:
    """Entries in the order of the rows that they come from.

    `parent`: the row of the table; `index`: the place in its list (0 for a single value); `keys`: what the entries are
    sorted and joined by: integers in the values' order, or bytes; `values`: the single values; `ranks`: of REGISTERS.
    """

    parent: Ints
    index: Ints
    keys: Ints | pa.Array
    values: pa.Array
    ranks: Ints | None = None


def entry_rows(inputs: tuple[Input, ...], cell: Cell, table: pa.Table, element: str | None) -> EntryRows:
    """The entries that the rows of `table` (columns x0, x1, … and `element`) add to a cell. Nulls add none."""
    column = _combined(table[input_column(cell)])
    type_name = input_type(inputs, cell, element)
    if map_types(type_name) is not None:
        parent, index, values, labels = _of_maps(column)
    elif element_type(type_name) is not None:
        parent, index, values = _of_lists(column, whole=cell.kind is CellKind.ELEMENTS)
        labels = values
    else:
        parent = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False)).astype(np.int64)
        index, values = np.zeros(len(parent), np.int64), column.take(pa.array(parent))
        labels = values
    if cell.kind is CellKind.ELEMENTS:
        return EntryRows(parent, index, index, values)
    if cell.kind is CellKind.BY:
        return _wanted(cell, table, EntryRows(parent, index, digests(labels), values), labels)
    if cell.kind is CellKind.REGISTERS:
        firsts = np.frombuffer(b"".join(digests(values).to_pylist()), ">u8")[::2].astype(np.uint64)
        registers, ranks = hash_ranks(firsts)
        return EntryRows(parent, index, registers, values, ranks)
    return EntryRows(parent, index, _keys(cell, values, value_type(type_name)), values)


def labels_of(rows: EntryRows, inputs: tuple[Input, ...], cell: Cell, table: pa.Table, element: str | None) -> pa.Array:
    """The key of each entry of a BY cell, as a value."""
    column = _combined(table[input_column(cell)])
    if map_types(input_type(inputs, cell, element)) is None:
        return column.take(pa.array(rows.parent))
    lengths = _lengths(column)
    starts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    keys, _ = _map_parts(column)
    return keys.take(pa.array(starts[rows.parent] + rows.index))


def ordered(values: pa.Array) -> Ints:
    """Values that fit a word, as integers in their order."""
    bits = value_bits(values)
    return _ordered_bits(bits) if pa.types.is_floating(values.type) else bits


def from_ordered(keys: Ints, type_name: str) -> Ints:
    """The bits of the values that stand behind ordered integers."""
    return _ordered_bits(keys) if type_name == "float64" else keys


def _ordered_bits(bits: Ints) -> Ints:
    """A double's bits to an integer in its order, and back."""
    flipped: Ints = np.where(bits < 0, bits ^ np.int64(INT64_MAX), bits)
    return flipped


def as_binary(values: pa.Array) -> pa.Array:
    """Text or bytes as bytes."""
    return values.cast(pa.binary())


def canonical(values: pa.Array) -> pa.Array:
    """The bytes of each value that are hashed: text and bytes as they are, other values as their 8 little-endian."""
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return as_binary(values)
    words = np.ascontiguousarray(value_bits(values)).astype("<i8")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(words), [None, pa.py_buffer(words.tobytes())]).cast(
        pa.binary()
    )


def digests(values: pa.Array) -> pa.Array:
    """md5 of each value's canonical bytes; each distinct value is hashed once."""
    encoded = canonical(values).dictionary_encode()
    hashed = [hashlib.md5(each, usedforsecurity=False).digest() for each in encoded.dictionary.to_pylist()]
    return pa.array(hashed, pa.binary()).take(encoded.indices)


def _keys(cell: Cell, values: pa.Array, type_name: str) -> Ints | pa.Array:
    if cell.kind is CellKind.BUCKETS:
        return bucket_keys(float64_of(values, 0.0))
    if cell.kind is CellKind.BINS:
        return _bins(cell.edges, values, type_name)
    if type_name not in ("string", "bytes"):
        return ordered(values)
    return digests(values) if cell.kind is CellKind.DISTINCT else as_binary(values)


def _bins(edges: tuple[float, ...], values: pa.Array, type_name: str) -> Ints:
    """How many edges are at most the value. Integers meet integers: v ≥ e exactly where v ≥ ⌈e⌉."""
    if type_name == "float64":
        return np.searchsorted(np.array(edges), float64_of(values, 0.0), side="right").astype(np.int64)
    scale = 10 ** decimal_scale(type_name) if is_decimal(type_name) else 1
    whole = [min(max(math.ceil(Fraction(edge) * scale), INT64_MIN), INT64_MAX + 1) for edge in edges]
    reachable = np.array([edge for edge in whole if edge <= INT64_MAX], np.int64)
    return np.searchsorted(reachable, int64_of(values), side="right").astype(np.int64)


def _of_lists(column: pa.Array, whole: bool) -> tuple[Ints, Ints, pa.Array]:
    """The elements of lists; `whole`: a list that is too long or has an element that is none is left out as one."""
    lengths = _lengths(column)
    values = column.flatten()
    parent = np.repeat(np.arange(len(column)), lengths)
    index = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    good = _present(values)
    if whole:
        bad = np.bincount(parent[~good], minlength=len(column)).astype(np.bool_) | (lengths > ELEMENTS_MAX)
        good = ~bad[parent]
    return parent[good], index[good], _clean(values.filter(pa.array(good)))


def _of_maps(column: pa.Array) -> tuple[Ints, Ints, pa.Array, pa.Array]:
    lengths = _lengths(column)
    keys, values = _map_parts(column)
    parent = np.repeat(np.arange(len(column)), lengths)
    index = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    good = _present(values)
    keep = pa.array(good)
    return parent[good], index[good], _clean(values.filter(keep)), keys.filter(keep)


def _map_parts(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Keys and items of all maps that are not null."""
    valid = column.drop_null()
    if not len(valid):
        return pa.nulls(0, column.type.key_type), pa.nulls(0, column.type.item_type)
    first, last = valid.offsets[0].as_py(), valid.offsets[len(valid)].as_py()
    return valid.keys.slice(first, last - first), valid.items.slice(first, last - first)


def _lengths(column: pa.Array) -> Ints:
    if pa.types.is_map(column.type):
        raw = np.diff(column.offsets.to_numpy(zero_copy_only=False)).astype(np.int64)
        return np.where(pc.is_valid(column).to_numpy(zero_copy_only=False), raw, 0)
    return int64_of(pc.list_value_length(column))


def _present(values: pa.Array) -> Bools:
    good: Bools = pc.is_valid(values).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type):
        good &= np.isfinite(float64_of(values, 0.0))
    return good


def _clean(values: pa.Array) -> pa.Array:
    """0.0 for −0.0, as everywhere (elements do not pass the guard of features/sql.py)."""
    return pa.array(float64_of(values, 0.0) + 0.0) if pa.types.is_floating(values.type) else values


def _wanted(cell: Cell, table: pa.Table, rows: EntryRows, labels: pa.Array) -> EntryRows:
    """Without the entries whose own input is null: such an event does not count for its key either."""
    inner = cell.inner[0]
    if inner.input == ELEMENT or inner.input < 0:
        return rows
    valid = pc.is_valid(_combined(table[input_column(inner)])).to_numpy(zero_copy_only=False)[rows.parent]
    keep = pa.array(valid)
    assert isinstance(rows.keys, pa.Array)
    return EntryRows(rows.parent[valid], rows.index[valid], rows.keys.filter(keep), rows.values.filter(keep))


def _combined(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
