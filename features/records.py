"""Records to merge: tiles decoded from online rows and their hashes, and events as cells of one event each."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import (
    FIRST_ZERO_TIME,
    INT64_MAX,
    INT64_MIN,
    LAST_ZERO_TIME,
    MOMENTS4_CLAMP_EXPONENT,
    MOMENTS_CLAMP_EXPONENT,
    WORDS,
    is_fixed,
    record_words,
    word_offsets,
)
from features.deltas import float64_of, huge_words, int64_of, value_bits
from features.exact import limbs_of_doubles, limbs_of_ints, limbs_of_words
from features.plan import EVERY_EVENT, Cell, CellKind, ViewPlan
from features.ranges import Ints, State
from features.sql import input_column
from features.states import SUMS, zero
from schemas.row import GENERATION_BYTES, HEADER, NO_EVENT, WORD_BYTES
from schemas.types import arrow_type, map_types

Words = npt.NDArray[np.uint64]

_LENGTH = struct.Struct("<I")
_ORDER = struct.Struct("<qqq")
_TILE_KEY = struct.Struct("<q")


@dataclass(frozen=True)
class Tiles:
    """Records of many rows: each one's row (ascending), its tile key and, by cell, its state."""

    rows: Ints
    tile_keys: Ints
    state: Callable[[int, Ints], State]


def parse_rows(plan: ViewPlan, rows: Sequence[bytes | None], generations: Sequence[bytes | None]) -> Tiles:
    """The records of fixed size of all rows; a row of another generation is left out."""
    size = record_words(plan.cells) * WORD_BYTES
    parts: list[bytes] = []
    counts = np.zeros(len(rows), np.int64)
    for number, (row, generation) in enumerate(zip(rows, generations, strict=True)):
        if row is not None and generation is not None and row[:GENERATION_BYTES] == generation:
            _, _, used, _ = HEADER.unpack_from(row)
            counts[number] = len(plan.resolutions) + used
            parts.append(row[HEADER.size : HEADER.size + counts[number] * size])
    words = np.frombuffer(b"".join(parts), np.uint64).reshape(-1, record_words(plan.cells))
    offsets = word_offsets(plan.cells)

    def state(cell: int, index: Ints) -> State:
        at = offsets[cell]
        if at is None:
            raise KeyError(cell)
        kind = plan.cells[cell].kind
        return DECODE[kind](words[:, at : at + WORDS[kind]].take(index, axis=0))

    return Tiles(np.repeat(np.arange(len(rows)), counts), words[:, 0].view(np.int64), state)


def newest_of_rows(rows: Sequence[bytes | None], generations: Sequence[bytes | None]) -> Ints:
    """The newest event of each row's header."""
    return np.array(
        [
            HEADER.unpack_from(row)[1] if row is not None and row[:GENERATION_BYTES] == generation else NO_EVENT
            for row, generation in zip(rows, generations, strict=True)
        ],
        np.int64,
    )


@dataclass(frozen=True)
class Fields:
    """The fields of many HASHes: each one's row (ascending), its tile key, and for each variable cell its bytes."""

    rows: Ints
    tile_keys: Ints
    values: dict[int, list[bytes]]


def parse_hashes(
    plan: ViewPlan,
    rows: Sequence[bytes | None],
    generations: Sequence[bytes | None],
    hashes: Sequence[Mapping[bytes, bytes] | None] | None,
) -> Fields:
    """What stands in the HASHes of all rows. A HASH counts only beside a row of this generation."""
    variable = [number for number, cell in enumerate(plan.cells) if not is_fixed(cell)]
    payloads: list[list[bytes]] = [[] for _ in variable]
    if not variable:
        return Fields(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    if hashes is None:
        raise ValueError(f"{plan.name} keeps text in hashes: read them with the rows")
    owners: list[int] = []
    tile_keys: list[int] = []
    for number, (row, generation, fields) in enumerate(zip(rows, generations, hashes, strict=True)):
        if not fields or row is None or generation is None or row[:GENERATION_BYTES] != generation:
            continue
        for tile_key, blob in fields.items():
            owners.append(number)
            tile_keys.append(_TILE_KEY.unpack(tile_key)[0])
            for column, payload in zip(payloads, split(blob, len(variable)), strict=True):
                column.append(payload)
    index = (np.array(owners, np.int64), np.array(tile_keys, np.int64))
    return Fields(*index, dict(zip(variable, payloads, strict=True)))


def event_state(cell: Cell, records: pa.Table) -> tuple[State, pa.Array | None]:
    """The state of each event alone (`Kernel.records`), and the pool that text and bytes point to."""
    column = None if cell.input == EVERY_EVENT else records[input_column(cell)].combine_chunks()
    if column is None:
        return (np.ones(len(records), np.int64),), None
    present: npt.NDArray[np.bool_] = pc.is_valid(column).to_numpy(zero_copy_only=False)
    if cell.kind is CellKind.COUNT:
        return (present.astype(np.int64),), None
    if cell.kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES):
        return _ranks(cell.kind, column)
    if cell.kind is CellKind.DECAYED:
        return _decayed_of_values(column, present, int64_of(records["t"])), None
    if cell.kind in SUMS or cell.kind in OF_VALUES:
        return OF_VALUES[cell.kind](column, present), None
    pool = column if cell.kind in (CellKind.FIRST_BYTES, CellKind.LAST_BYTES) else None
    payload = np.arange(len(column)) if pool is not None else value_bits(column)
    order = [int64_of(records[name]) for name in ("t", "position", "offset")]
    absent_time = FIRST_ZERO_TIME if cell.kind in (CellKind.FIRST, CellKind.FIRST_BYTES) else LAST_ZERO_TIME
    state = tuple(
        np.where(present, values, absent)
        for values, absent in zip([*order, payload], (absent_time, 0, 0, 0), strict=True)
    )
    return state, pool


def _moments_of_values(column: pa.Array, present: npt.NDArray[np.bool_]) -> State:
    limit = 2.0**MOMENTS_CLAMP_EXPONENT
    values = np.clip(float64_of(column, 0.0), -limit, limit)
    least, greatest = np.where(present, values, np.inf), np.where(present, values, -np.inf)
    return (present.astype(np.int64), np.where(present, values, 0.0), np.zeros(len(values)), least, greatest)


def _moments4_of_values(column: pa.Array, present: npt.NDArray[np.bool_]) -> State:
    limit = 2.0**MOMENTS4_CLAMP_EXPONENT
    values = np.clip(float64_of(column, 0.0), -limit, limit)
    least, greatest = np.where(present, values, np.inf), np.where(present, values, -np.inf)
    zeros = [np.zeros(len(values)) for _ in range(3)]
    return (present.astype(np.int64), np.where(present, values, 0.0), *zeros, least, greatest)


def _decayed_of_values(column: pa.Array, present: npt.NDArray[np.bool_], times: Ints) -> State:
    limit = 2.0**MOMENTS_CLAMP_EXPONENT
    values = np.clip(float64_of(column, 0.0), -limit, limit)
    return (np.where(present, times, LAST_ZERO_TIME), np.where(present, values, 0.0), present.astype(np.float64))


def _int_limbs(column: pa.Array) -> Ints:
    if not pa.types.is_decimal(column.type):
        return limbs_of_ints(int64_of(column))
    words = huge_words(column).copy()
    words[pc.is_null(column).to_numpy(zero_copy_only=False)] = 0
    return limbs_of_words(words)


OF_VALUES: dict[CellKind, Callable[[pa.Array, npt.NDArray[np.bool_]], State]] = {
    CellKind.SUM_INT: lambda column, present: (_int_limbs(column),),
    CellKind.SUM_FIXED: lambda column, present: (limbs_of_doubles(float64_of(column, 0.0)),),
    CellKind.MIN_INT: lambda column, present: (int64_of(column, INT64_MAX),),
    CellKind.MAX_INT: lambda column, present: (int64_of(column, INT64_MIN),),
    CellKind.MIN_FLOAT: lambda column, present: (float64_of(column, np.inf),),
    CellKind.MAX_FLOAT: lambda column, present: (float64_of(column, -np.inf),),
    CellKind.MOMENTS: _moments_of_values,
    CellKind.MOMENTS4: _moments4_of_values,
}
"""A column of inputs as states of one event each; a null is the zero."""


def _ints(words: Words) -> State:
    return (np.ascontiguousarray(words[:, 0]).view(np.int64),)


def _floats(words: Words) -> State:
    return (np.ascontiguousarray(words[:, 0]).view(np.float64),)


def _columns(words: Words) -> State:
    return tuple(np.ascontiguousarray(words[:, k]).view(np.int64) for k in range(words.shape[1]))


def _moments(words: Words) -> State:
    count, *rest = _columns(words)
    return (count, *(column.view(np.float64) for column in rest))


DECODE: dict[CellKind, Callable[[Words], State]] = {
    CellKind.COUNT: _ints,
    CellKind.SUM_INT: lambda words: (limbs_of_words(words),),
    CellKind.SUM_FIXED: lambda words: (limbs_of_words(words),),
    CellKind.MIN_INT: _ints,
    CellKind.MAX_INT: _ints,
    CellKind.MIN_FLOAT: _floats,
    CellKind.MAX_FLOAT: _floats,
    CellKind.FIRST: _columns,
    CellKind.LAST: _columns,
    CellKind.MOMENTS: _moments,
    CellKind.MOMENTS4: _moments,
    CellKind.DECAYED: _moments,
}
"""The words of a record as a state."""


def split(blob: bytes, count: int) -> list[bytes]:
    """The bytes of `count` cells, each with its length in front."""
    parts = []
    at = 0
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(blob, at)
        parts.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return parts


def text_state(kind: CellKind, payloads: list[bytes], type_name: str) -> tuple[State, pa.Array]:
    """The state of each payload of a cell of text or bytes, and the pool that states point to."""
    extreme = kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES)
    skip = 1 if extreme else _ORDER.size
    parts = [payload[skip:] if payload else None for payload in payloads]
    if type_name in ("string", "bytes"):
        values = pa.array(parts, pa.binary()).cast(arrow_type(type_name))
    else:
        values = nested_array([None if part is None else msgspec.msgpack.decode(part) for part in parts], type_name)
    if extreme:
        return _ranks(kind, values)
    absent = (int(zero(kind)[0][0]), 0, 0)
    order = [_ORDER.unpack_from(payload) if payload else absent for payload in payloads]
    columns = np.array(order, np.int64).reshape(-1, 3)
    return (columns[:, 0], columns[:, 1], columns[:, 2], np.arange(len(payloads))), values


def nested_array(values: list[Any], type_name: str) -> pa.Array:
    """Lists, and maps as lists of pairs, in Arrow."""
    if map_types(type_name) is not None:
        values = [None if value is None else [tuple(pair) for pair in value] for value in values]
    return pa.array(values, arrow_type(type_name))


def _ranks(kind: CellKind, values: pa.Array) -> tuple[State, pa.Array]:
    """Values as their ranks in a sorted pool of the distinct ones; Arrow sorts text by its bytes."""
    distinct = values.drop_null().unique()
    pool = distinct.take(pc.sort_indices(distinct))
    absent = INT64_MAX if kind is CellKind.MIN_BYTES else INT64_MIN
    ranks = pc.cast(pc.index_in(values, pool), pa.int64())
    valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
    filled = pc.fill_null(ranks, 0).to_numpy(zero_copy_only=False)
    return (np.where(valid, filled, absent),), pool
