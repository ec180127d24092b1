"""The one read: records sorted by entity and time, a range of them a window, a merge of the range, the finish.

Online the records are tiles of Redis rows (`read_rows`), offline they are events (`read_records`); what is merged and
finished is one code, so that serving and training can't drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.finish import Values, finish
from features.lookup import Lookup
from features.plan import Feature, ViewPlan, WindowPlan
from features.ranges import Ints, State
from features.records import event_state, newest_of_rows, parse_hashes, parse_rows
from features.states import merge_of_ranges
from features.window import bounds_us, tile_key_range

Hash = Mapping[bytes, bytes]


def read_rows(
    plan: ViewPlan,
    rows: Sequence[bytes | None],
    generations: Sequence[bytes | None],
    instant_us: int | Ints,
    features: Sequence[str],
    hashes: Sequence[Hash | None] | None = None,
) -> list[Values]:
    """Features of entities, from their online rows, at an instant later than every event folded: one, or each its own.

    `rows[i]` is an entity's row in Redis (None: there is none), `generations[i]` its shard's; a row of another
    generation is absent. `hashes[i]`: its HASH, where the plan has cells of variable size.
    """
    tiles = parse_rows(plan, rows, generations)
    texts = parse_hashes(plan, rows, generations, hashes)
    entities = np.arange(len(rows) + 1)
    instants = np.atleast_1d(np.asarray(instant_us, np.int64))
    if len(instants) and (instants == instants[0]).all():
        instants = instants[:1]

    def select(window: WindowPlan, cell: int) -> Selected:
        records = texts.get(cell, tiles)
        first, last = tile_key_range(window, plan.resolutions, instants)
        if len(instants) > 1:
            first, last = first.take(records.rows), last.take(records.rows)
        inside = np.flatnonzero((records.tile_keys >= first) & (records.tile_keys < last))
        bounds = np.searchsorted(records.rows.take(inside), entities)
        return Selected(records.state(cell, inside), records.pool, bounds[:-1], bounds[1:])

    return _read(plan, features, select)


def newest_us(rows: Sequence[bytes | None], generations: Sequence[bytes | None]) -> Ints:
    """The newest event folded into each row, `schemas.row.NO_EVENT` for an absent one."""
    return newest_of_rows(rows, generations)


def read_records(
    plan: ViewPlan, records: pa.Table, keys: pa.Array, instant_us: Ints, features: Sequence[str]
) -> list[Values]:
    """Features at past instants, from `Kernel.records`: for each query an entity key's text and an instant.

    A null key gives nulls; an entity that was never seen gives what no events give.
    """
    lookup = Lookup(records, keys)
    states: dict[int, tuple[State, pa.Array | None]] = {}
    ranges: dict[WindowPlan, tuple[Ints, Ints]] = {}

    def select(window: WindowPlan, cell: int) -> Selected:
        if cell not in states:
            states[cell] = event_state(plan.cells[cell], records)
        if window not in ranges:
            start, end = bounds_us(window, plan.resolutions[window.resolution].hop_us, instant_us)
            ranges[window] = (lookup.at(start), lookup.at(end))
        return Selected(*states[cell], *ranges[window])

    known = pc.is_valid(keys).to_numpy(zero_copy_only=False)
    return [values.where(known) for values in _read(plan, features, select)]


class Selected(NamedTuple):
    """What one cell of one window is merged from: records, the pool they point to, and each query's range."""

    state: State
    pool: pa.Array | None
    lo: Ints
    hi: Ints


class Select(Protocol):
    def __call__(self, window: WindowPlan, cell: int) -> Selected: ...


def _read(plan: ViewPlan, features: Sequence[str], select: Select) -> list[Values]:
    merged: dict[tuple[WindowPlan, int], tuple[State, pa.Array | None]] = {}

    def state(window: WindowPlan, cell: int) -> tuple[State, pa.Array | None]:
        if (window, cell) not in merged:
            chosen = select(window, cell)
            ranged = merge_of_ranges(plan.cells[cell].kind, chosen.state, chosen.lo, chosen.hi)
            merged[window, cell] = (ranged, chosen.pool)
        return merged[window, cell]

    return [_finish(plan, plan.feature(name), state) for name in features]


def _finish(
    plan: ViewPlan, feature: Feature, state: Callable[[WindowPlan, int], tuple[State, pa.Array | None]]
) -> Values:
    cells = [state(feature.window, cell) for cell in feature.cells]
    return finish(plan, feature, [merged for merged, _ in cells], cells[0][1])
