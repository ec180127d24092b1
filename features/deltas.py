"""Partial aggregates -> the records of the online row: what a worker sends to Redis."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import FIRST_ZERO_TIME, INT64_MAX, INT64_MIN, LAST_ZERO_TIME, is_fixed, record_words, word_offsets
from features.plan import Cell, CellKind, ViewPlan

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_LENGTH = struct.Struct("<I")
_ORDER = struct.Struct("<qqq")


@dataclass(frozen=True)
class Deltas:
    """What a micro-batch adds to each entity's row, sorted by (shard, key, tile key).

    `starts` (rows + 1) bounds each row's records; `records` (records, words) are as schemas/row.py lays them out;
    `var`: for each record the value of its HASH field, where the plan has cells of variable size. `counts`: events
    read, events that counted, and nulls of each input.
    """

    keys: list[str]
    shards: npt.NDArray[np.int32]
    starts: Ints
    newest_us: Ints
    records: Words
    var: list[bytes] | None
    counts: dict[str, int]


def to_deltas(plan: ViewPlan, events: pa.Table, partials: pa.Table, counts: dict[str, int]) -> Deltas:
    """Lays out the partial aggregates (`sql.deltas`) of prepared events (sorted, row number = ord)."""
    keys = partials["key"].combine_chunks()
    starts = _starts(keys)
    first_rows = starts[:-1]
    newest = int64_of(partials["newest"])
    records = np.zeros((len(partials), record_words(plan.cells)), np.uint64)
    records[:, 0] = int64_of(partials["tile_key"]).view(np.uint64)
    for number, (cell, at) in enumerate(zip(plan.cells, word_offsets(plan.cells), strict=True)):
        if at is not None:
            words = WORDS_OF[cell.kind](cell, number, partials, events)
            records[:, at : at + words.shape[1]] = words
    return Deltas(
        keys=keys.take(pa.array(first_rows)).to_pylist(),
        shards=partials["shard"].to_numpy()[first_rows].astype(np.int32),
        starts=starts,
        newest_us=np.maximum.reduceat(newest, first_rows) if len(first_rows) else newest,
        records=records,
        var=None if all(is_fixed(cell) for cell in plan.cells) else _var_blobs(plan, partials, events),
        counts=counts,
    )


def int64_of(column: pa.ChunkedArray | pa.Array, null: int = 0) -> Ints:
    """A column of integers, booleans, dates or timestamps as int64; nulls become `null`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.int8())
    elif pa.types.is_date32(array.type):
        array = array.view(pa.int32())
    elif pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    filled = pc.fill_null(pc.cast(array, pa.int64()), null)
    values: Ints = filled.to_numpy(zero_copy_only=False)
    return values


def float64_of(column: pa.ChunkedArray | pa.Array, null: float) -> npt.NDArray[np.float64]:
    """A column of numbers as float64; nulls become `null`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: npt.NDArray[np.float64] = pc.fill_null(pc.cast(array, pa.float64()), null).to_numpy(zero_copy_only=False)
    return values


def value_bits(column: pa.ChunkedArray | pa.Array) -> Ints:
    """A column of values that fit a word, as the word's bits."""
    if pa.types.is_floating(column.type):
        return float64_of(column, 0.0).view(np.int64)
    return int64_of(column)


def _starts(keys: pa.Array) -> Ints:
    if not len(keys):
        return np.zeros(1, np.int64)
    changed = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate(([0], np.flatnonzero(changed) + 1, [len(keys)])).astype(np.int64)


def _column(number: int, part: int, partials: pa.Table) -> pa.Array:
    return partials[f"c{number}_{part}"].combine_chunks()


def _huge(column: pa.Array) -> Words:
    """HUGEINT (in Arrow decimal128 of scale 0, never null here) as two words."""
    data = np.frombuffer(column.buffers()[1], dtype=np.uint64)
    return data.reshape(-1, 2)[column.offset : column.offset + len(column)]


def _one_int(null: int) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        return int64_of(_column(number, 0, partials), null).view(np.uint64)[:, None]

    return words


def _one_float(null: float) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        return float64_of(_column(number, 0, partials), null).view(np.uint64)[:, None]

    return words


def _sum_int(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    return _huge(_column(number, 0, partials))


def _sum_fixed(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    """high · 2**62 + low, as 192 bits."""
    high = _huge(_column(number, 0, partials))
    low = _huge(_column(number, 1, partials))
    upper = high[:, 1].view(np.int64)
    words = np.empty((len(partials), 3), np.uint64)
    words[:, 0] = high[:, 0] << np.uint64(62)
    words[:, 1] = (high[:, 0] >> np.uint64(2)) | (high[:, 1] << np.uint64(62))
    words[:, 2] = (upper >> 2).view(np.uint64)
    extended = np.column_stack([low, (low[:, 1].view(np.int64) >> 63).view(np.uint64)])
    return _add(words, extended)


def _add(a: Words, b: Words) -> Words:
    total = np.empty_like(a)
    carry = np.zeros(len(a), np.uint64)
    for k in range(a.shape[1]):
        partial = a[:, k] + b[:, k]
        total[:, k] = partial + carry
        carry = ((partial < a[:, k]) | (total[:, k] < partial)).astype(np.uint64)
    return total


def _ordered(zero_time: int) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        at = _column(number, 0, partials)
        absent = pc.is_null(at).to_numpy(zero_copy_only=False)
        chosen = events.take(pa.array(int64_of(at)))
        columns = [int64_of(chosen[name]) for name in ("t", "position", "offset")]
        record = np.column_stack([*columns, value_bits(chosen[f"x{cell.input}"])])
        record[absent] = (zero_time, 0, 0, 0)
        return np.ascontiguousarray(record).view(np.uint64)

    return words


def _moments(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    count = int64_of(_column(number, 0, partials)).view(np.uint64)
    rest = [float64_of(_column(number, part, partials), 0.0).view(np.uint64) for part in range(1, 5)]
    return np.column_stack([count, *rest])


WORDS_OF: dict[CellKind, Callable[[Cell, int, pa.Table, pa.Table], Words]] = {
    CellKind.COUNT: _one_int(0),
    CellKind.SUM_INT: _sum_int,
    CellKind.SUM_FIXED: _sum_fixed,
    CellKind.MIN_INT: _one_int(INT64_MAX),
    CellKind.MAX_INT: _one_int(INT64_MIN),
    CellKind.MIN_FLOAT: _one_float(float("inf")),
    CellKind.MAX_FLOAT: _one_float(float("-inf")),
    CellKind.FIRST: _ordered(FIRST_ZERO_TIME),
    CellKind.LAST: _ordered(LAST_ZERO_TIME),
    CellKind.MOMENTS: _moments,
}
"""The words of each cell of fixed size, from its partial aggregates."""


def _var_blobs(plan: ViewPlan, partials: pa.Table, events: pa.Table) -> list[bytes]:
    """The HASH value of each record. Text is copied one by one: it has no fixed size to vectorise over."""
    payloads = [
        _payloads(cell, number, partials, events) for number, cell in enumerate(plan.cells) if not is_fixed(cell)
    ]
    return [b"".join(_LENGTH.pack(len(part)) + part for part in parts) for parts in zip(*payloads, strict=True)]


def _payloads(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> list[bytes]:
    column = _column(number, 0, partials)
    if cell.kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES):
        return [b"" if value is None else b"\x01" + _bytes(value) for value in column.to_pylist()]
    chosen = events.take(pa.array(int64_of(column)))
    orders = zip(*(chosen[name].to_pylist() for name in ("t", "position", "offset")), strict=True)
    values = chosen[f"x{cell.input}"].to_pylist()
    return [
        b"" if at is None else _ORDER.pack(*order) + _bytes(value)
        for at, order, value in zip(column.to_pylist(), orders, values, strict=True)
    ]


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
