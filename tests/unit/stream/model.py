"""Merging in plain Python: what the Lua script must do. A cell's state is a tuple; a tile is a tuple of states."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from features.cells import WORDS, is_fixed, record_words
from features.plan import Cell, CellKind, Resolution, Source, ViewPlan
from schemas.event import Column, EventSpec
from schemas.row import EMPTY_TILE, GENERATION_BYTES, HEADER, TILE_BIAS, WORD_BYTES, tile_key

State = tuple
Tile = tuple[State, ...]

ZERO: dict[CellKind, State] = {
    CellKind.COUNT: (0,),
    CellKind.SUM_INT: (0,),
    CellKind.SUM_FIXED: (0,),
    CellKind.MIN_INT: (2**63 - 1,),
    CellKind.MAX_INT: (-(2**63),),
    CellKind.MIN_FLOAT: (math.inf,),
    CellKind.MAX_FLOAT: (-math.inf,),
    CellKind.FIRST: (2**53, 0, 0, bytes(8)),
    CellKind.LAST: (-(2**53), 0, 0, bytes(8)),
    CellKind.MOMENTS: (0, 0.0, 0.0, math.inf, -math.inf),
    CellKind.MIN_BYTES: (b"",),
    CellKind.MAX_BYTES: (b"",),
    CellKind.FIRST_BYTES: (b"",),
    CellKind.LAST_BYTES: (b"",),
}
FORMATS = {
    CellKind.COUNT: "<q",
    CellKind.MIN_INT: "<q",
    CellKind.MAX_INT: "<q",
    CellKind.MIN_FLOAT: "<d",
    CellKind.MAX_FLOAT: "<d",
    CellKind.FIRST: "<qqq8s",
    CellKind.LAST: "<qqq8s",
    CellKind.MOMENTS: "<qdddd",
}


def merge(kind: CellKind, a: State, b: State) -> State:  # noqa: PLR0911
    match kind:
        case CellKind.COUNT:
            return (a[0] + b[0],)
        case CellKind.SUM_INT | CellKind.SUM_FIXED:
            bits = 64 * WORDS[kind]
            return ((a[0] + b[0] + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1),)
        case CellKind.MIN_INT | CellKind.MIN_FLOAT | CellKind.FIRST:
            return min(a, b)
        case CellKind.MAX_INT | CellKind.MAX_FLOAT | CellKind.LAST:
            return max(a, b)
        case CellKind.MOMENTS:
            return _merge_moments(a, b)
        case CellKind.MIN_BYTES:
            return min(a, b) if a[0] and b[0] else max(a, b)
        case CellKind.MAX_BYTES:
            return max(a, b)
        case CellKind.FIRST_BYTES:
            return min(a, b, key=_order) if a[0] and b[0] else max(a, b)
        case CellKind.LAST_BYTES:
            return max(a, b, key=_order) if a[0] and b[0] else max(a, b)


def _order(state: State) -> tuple[int, ...]:
    return struct.unpack("<qqq", state[0][:24])


def _merge_moments(a: State, b: State) -> State:
    if not a[0] or not b[0]:
        return a if a[0] else b
    n, d = a[0] + b[0], b[1] - a[1]
    mean, m2 = a[1] + d * b[0] / n, a[2] + b[2] + d * d * a[0] * b[0] / n
    return (n, mean, m2, min(a[3], b[3]), max(a[4], b[4]))


def encode(kind: CellKind, state: State) -> bytes:
    if kind in (CellKind.SUM_INT, CellKind.SUM_FIXED):
        return state[0].to_bytes(8 * WORDS[kind], "little", signed=True)
    if kind not in WORDS:
        return struct.pack("<I", len(state[0])) + state[0]
    return struct.pack(FORMATS[kind], *state)


def decode(kind: CellKind, data: bytes) -> State:
    if kind in (CellKind.SUM_INT, CellKind.SUM_FIXED):
        return (int.from_bytes(data, "little", signed=True),)
    return struct.unpack(FORMATS[kind], data)


class Row(NamedTuple):
    """A row as a reader sees it: its newest event, and the merge of all records of each tile."""

    generation: bytes
    newest_us: int
    used: int
    slots: int
    tiles: dict[int, Tile]
    records: int


def read_row(plan: ViewPlan, data: bytes, fields: Mapping[bytes, bytes]) -> Row:
    generation, newest, used, slots = HEADER.unpack_from(data)
    size = record_words(plan.cells) * WORD_BYTES
    count = len(plan.resolutions) + used
    assert len(data) == HEADER.size + (len(plan.resolutions) + slots) * size
    tiles: dict[int, Tile] = {}
    for number in range(count):
        record = data[HEADER.size + number * size :][:size]
        key = int.from_bytes(record[:8], "little", signed=True)
        if key != EMPTY_TILE:
            tile = _tile(plan.cells, record[8:], fields.get(record[:8]))
            old = tiles.get(key)
            # A HASH has one field a tile, whatever the number of its records.
            tiles[key] = tile if old is None else merge_tiles(_fixed_only(plan.cells, tile), old, plan.cells)
    return Row(generation[:GENERATION_BYTES], newest, used, slots, tiles, count)


def _fixed_only(cells: Sequence[Cell], tile: Tile) -> Tile:
    return tuple(state if is_fixed(cell) else ZERO[cell.kind] for cell, state in zip(cells, tile, strict=True))


def _tile(cells: Sequence[Cell], words: bytes, value: bytes | None) -> Tile:
    states, at, value_at = [], 0, 0
    for cell in cells:
        if is_fixed(cell):
            size = WORDS[cell.kind] * WORD_BYTES
            states.append(decode(cell.kind, words[at : at + size]))
            at += size
        elif value is None:
            states.append(ZERO[cell.kind])
        else:
            (length,) = struct.unpack_from("<I", value, value_at)
            states.append((value[value_at + 4 : value_at + 4 + length],))
            value_at += 4 + length
    return tuple(states)


def merge_tiles(a: Tile, b: Tile, cells: Sequence[Cell]) -> Tile:
    return tuple(merge(cell.kind, x, y) for cell, x, y in zip(cells, a, b, strict=True))


class ModelEvent(NamedTuple):
    entity: str
    time_us: int
    tile: Tile


def tiles_of(plan: ViewPlan, events: Iterable[ModelEvent]) -> dict[str, dict[int, Tile]]:
    """For each entity the merge of its events by tile key, in each resolution."""
    result: dict[str, dict[int, Tile]] = {}
    for event in events:
        tiles = result.setdefault(event.entity, {})
        for number, resolution in enumerate(plan.resolutions):
            key = tile_key(number, event.time_us // resolution.hop_us if resolution.hop_us else 0)
            tiles[key] = merge_tiles(tiles[key], event.tile, plan.cells) if key in tiles else event.tile
    return result


def is_expired(plan: ViewPlan, key: int, newest_us: int) -> bool:
    number, rest = divmod(key, 2**47)
    resolution = plan.resolutions[number]
    return resolution.span_us > 0 and (rest - TILE_BIAS + 1) * resolution.hop_us + resolution.span_us < newest_us


def make_plan(
    kinds: Sequence[CellKind],
    resolutions: Sequence[tuple[int, int]] = ((10, 40),),
    shards: int = 1,
    topics: Sequence[str] = ("events",),
) -> ViewPlan:
    """A plan by hand: one float64 input for each cell."""
    columns = (Column("key", "string", False), Column("t", "timestamp", False), Column("x", "float64", True))
    return ViewPlan(
        name="view",
        fingerprint="0" * 32,
        storage_id="0123456789ab",
        entities=("entity",),
        keys=(columns[0],),
        sources=tuple(
            Source(EventSpec(topic, topic, None, None, "t", ("key",), columns, None, 0, 0, "")) for topic in topics
        ),
        where=None,
        inputs=(),
        cells=tuple(Cell(kind, -1) for kind in kinds),
        resolutions=tuple(Resolution(*each) for each in resolutions),
        features=(),
        shards=shards,
    )
