"""The one read: records sorted by entity and time, a range of them a window, a merge of the range, the finish.

Online the records are tiles of Redis rows (`read_rows`), offline they are events (`read_records`); what is merged and
finished is one code, so that serving and training can't drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import is_entries, is_fixed
from features.finish import Finishing, Values, finish_fixed
from features.lists import Fixed, Pairs, Source, finish_any
from features.lookup import Lookup
from features.plan import LIFETIME, Feature, ViewPlan, WindowPlan
from features.ranges import Ints, State, take
from features.records import newest_of_rows, parse_hashes, parse_rows
from features.sources import of_bytes, of_events
from features.states import Ranges, zero
from features.window import bounds_us, tile_key_range
from features.zones import periods
from schemas.row import TIME_MIN_US

Hash = Mapping[bytes, bytes]
EXPANDED_MAX = 1 << 22
"""Records that queries over cells of entries look at in one go: 4 million, some hundred MB."""


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
    fields = parse_hashes(plan, rows, generations, hashes)
    sources: dict[int, Source] = {}
    entities = np.arange(len(rows) + 1)

    asked = np.atleast_1d(np.asarray(instant_us, np.int64))
    if len(asked) and (asked == asked[0]).all():
        asked = asked[:1]

    def inside(window: WindowPlan, owners: Ints, tile_keys: Ints) -> Ints:
        first, last = tile_key_range(window, plan.resolutions, asked)
        if len(asked) > 1:
            first, last = first.take(owners), last.take(owners)
        return np.flatnonzero((tile_keys >= first) & (tile_keys < last))

    def source(cell: int) -> Source:
        if cell not in sources:
            sources[cell] = of_bytes(plan.inputs, plan.cells[cell], fields.values[cell])
        return sources[cell]

    def select(window: WindowPlan, cell: int) -> Selected:
        if is_fixed(plan.cells[cell]):
            index = inside(window, tiles.rows, tiles.tile_keys)
            bounds = np.searchsorted(tiles.rows.take(index), entities)
            return Selected(tiles.state(cell, index), None, bounds[:-1], bounds[1:])
        found = source(cell)
        assert isinstance(found, Fixed)
        index = inside(window, fields.rows, fields.tile_keys)
        bounds = np.searchsorted(fields.rows.take(index), entities)
        return Selected(take(found.state, index), found.pool, bounds[:-1], bounds[1:])

    def pairs(window: WindowPlan) -> Iterator[tuple[Pairs, Ints]]:
        index = inside(window, fields.rows, fields.tile_keys)
        chosen = Pairs(fields.rows.take(index), index, fields.tile_keys.take(index), len(rows))
        yield chosen, np.arange(len(rows))

    instants = np.broadcast_to(asked, len(rows)) if len(asked) else asked
    reading = Reading(select, source, pairs, {}, {})
    return [_value(plan, plan.feature(name), reading, instants) for name in features]


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
    known = pc.is_valid(keys).to_numpy(zero_copy_only=False)
    if plan.kind == "latest" and len(records):
        # Of each range the newest record alone matters, whatever the feature.
        first, last = lookup.at(np.full_like(instant_us, TIME_MIN_US)), lookup.at(instant_us)
        return read_newest(
            plan, records.take(pa.array(np.maximum(last, 1) - 1)), known & (last > first), instant_us, features
        )
    sources: dict[int, Source] = {}
    ranges: dict[WindowPlan, tuple[Ints, Ints]] = {}

    def source(cell: int) -> Source:
        if cell not in sources:
            sources[cell] = of_events(plan.inputs, plan.cells[cell], records)
        return sources[cell]

    def bounds(window: WindowPlan) -> tuple[Ints, Ints]:
        if window not in ranges:
            start, end = bounds_us(window, plan.resolutions[window.resolution].hop_us, instant_us)
            first, last = lookup.at(start), lookup.at(end)
            ranges[window] = (first, np.maximum(first, last))
        return ranges[window]

    def select(window: WindowPlan, cell: int) -> Selected:
        found = source(cell)
        assert isinstance(found, Fixed)
        return Selected(found.state, found.pool, *bounds(window))

    def pairs(window: WindowPlan) -> Iterator[tuple[Pairs, Ints]]:
        lo, hi = bounds(window)
        tiles = _tiles_of(plan, window, records)
        for queries in _in_turn(hi - lo):
            lengths = (hi - lo)[queries]
            skip = np.repeat(np.cumsum(lengths) - lengths, lengths)
            record = np.arange(int(lengths.sum())) - skip + np.repeat(lo[queries], lengths)
            query = np.repeat(np.arange(len(queries)), lengths)
            yield Pairs(query, record, tiles[record], len(queries)), queries

    reading = Reading(select, source, pairs, {}, {})
    return [_value(plan, plan.feature(name), reading, instant_us).where(known) for name in features]


def read_newest(
    plan: ViewPlan, records: pa.Table, found: npt.NDArray[np.bool_], instant_us: Ints, features: Sequence[str]
) -> list[Values]:
    """Features of a view of latest values, from the newest record before each query's instant.

    Where none is `found`, the value is null and the record anything.
    """
    merged: dict[int, tuple[State, pa.Array | None]] = {}

    def state(cell: int) -> tuple[State, pa.Array | None]:
        if cell not in merged:
            one = of_events(plan.inputs, plan.cells[cell], records)
            assert isinstance(one, Fixed), "a latest value is one value"
            nothing = zero(plan.cells[cell].kind)
            kept = tuple(np.where(found, array, none) for array, none in zip(one.state, nothing, strict=True))
            merged[cell] = (kept, one.pool)
        return merged[cell]

    values = []
    for feature in map(plan.feature, features):
        cells = tuple(plan.cells[cell] for cell in feature.cells)
        how = Finishing(feature.finish, feature.type, feature.parameters, instant_us, feature.window.lag_us)
        states = [state(cell) for cell in feature.cells]
        values.append(finish_fixed(cells, how, [each for each, _ in states], states[-1][1]))
    return values


class Selected(NamedTuple):
    """What one cell of one window is merged from: records, the pool they point to, and each query's range."""

    state: State
    pool: pa.Array | None
    lo: Ints
    hi: Ints


class Select(Protocol):
    def __call__(self, window: WindowPlan, cell: int) -> Selected: ...


class Reading(NamedTuple):
    """Where records come from: ranges of states for cells of one value, pairs of query and record for entries.

    Pairs come for some queries at a time, with the numbers of these queries. `merged` and `ranges` remember what
    features and windows share.
    """

    select: Select
    source: Callable[[int], Source]
    pairs: Callable[[WindowPlan], Iterator[tuple[Pairs, Ints]]]
    merged: dict[tuple[WindowPlan, int], tuple[State, pa.Array | None]]
    ranges: dict[int, Ranges]


def _value(plan: ViewPlan, feature: Feature, reading: Reading, instant_us: Ints) -> Values:
    cells = tuple(plan.cells[cell] for cell in feature.cells)
    how = Finishing(feature.finish, feature.type, feature.parameters, instant_us, feature.window.lag_us)
    if not is_entries(cells[0]):
        states = [_merged(plan, feature.window, cell, reading) for cell in feature.cells]
        # Where a cell is text, the last one is: it stands behind what it is compared with.
        return finish_fixed(cells, how, [state for state, _ in states], states[-1][1])
    sources = tuple(reading.source(cell) for cell in feature.cells)
    parts = []
    for pairs, queries in reading.pairs(feature.window):
        parts.append(finish_any(cells, sources, how._replace(instant_us=instant_us[queries]), pairs))
    return Values.concat(parts)


def _merged(plan: ViewPlan, window: WindowPlan, cell: int, reading: Reading) -> tuple[State, pa.Array | None]:
    if (window, cell) not in reading.merged:
        chosen = reading.select(window, cell)
        ranges = reading.ranges.get(cell)
        if ranges is None or ranges.state is not chosen.state:
            ranges = Ranges(plan.cells[cell].kind, chosen.state, plan.cells[cell].argument)
            reading.ranges[cell] = ranges
        reading.merged[window, cell] = (ranges.of(chosen.lo, chosen.hi), chosen.pool)
    return reading.merged[window, cell]


def _tiles_of(plan: ViewPlan, window: WindowPlan, records: pa.Table) -> Ints:
    """The tile of each record in the window's resolution."""
    times = records["t"].to_numpy()
    resolution = plan.resolutions[window.resolution]
    if resolution.calendar is not None:
        return periods(resolution.calendar).number(times)
    return np.zeros(len(times), np.int64) if resolution.hop_us == LIFETIME else times // resolution.hop_us


def _in_turn(lengths: Ints) -> Iterator[Ints]:
    """The queries in parts that look at EXPANDED_MAX records each (or are one query)."""
    total = np.cumsum(lengths)
    start = 0
    while start < len(lengths) or start == 0:
        before = int(total[start - 1]) if start else 0
        stop = int(np.searchsorted(total, before + EXPANDED_MAX, side="right"))
        stop = min(max(stop, start + 1), len(lengths))
        yield np.arange(start, stop)
        start = max(stop, 1)
        if start >= len(lengths):
            return
