"""Reading cells of sorted entries: entries of records -> the values of queries, vectorised. DESIGN §2 'Values'.

A query is merged from records (tiles online, events offline): `Pairs`, sorted by query. Their entries are expanded,
sorted by (query, key), joined, and summed up: to a list, a count, a quantile, or, cells inside cells, to a map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.entries import from_ordered
from features.finish import Array, Finishing, Values, finish_fixed, object_array, objects, typed
from features.plan import Cell, CellKind
from features.ranges import Ints, State, take
from features.sketches import BUCKETS_MAX, BY_KEYS_MAX, KEYS_MAX, RANK_BITS, bucket_values, estimate
from features.states import merge_of_ranges

Bools = npt.NDArray[np.bool_]


class Pairs(NamedTuple):
    """Which records each of `queries` queries is merged from, sorted by query; and the tile of each such record."""

    query: Ints
    record: Ints
    tile: Ints
    queries: int


@dataclass(frozen=True)
class Fixed:
    """The states of a cell of fixed size, one a record, and the pool that text points to."""

    state: State
    pool: pa.Array | None


@dataclass(frozen=True)
class Entries:
    """The entries of records: `starts[r] … starts[r + 1]` are those of record r.

    `keys`: integers in the keys' order. `number`: a count or a rank. `order`: (time, position, offset, index).
    `payload`: a value's bits, or its index in `pool`. `labels`: the value of each key, where keys point to them.
    `inner`: the cells inside, whose records are these entries.
    """

    type: str
    starts: Ints
    keys: Ints
    number: Ints | None = None
    order: tuple[Ints, ...] = ()
    payload: Ints | None = None
    pool: pa.Array | None = None
    labels: pa.Array | None = None
    inner: tuple[Source, ...] = ()


Source: TypeAlias = Fixed | Entries


class _Groups(NamedTuple):
    """Entries sorted by (query, key): for each group its query, its key, and where it starts and ends among them."""

    query: Ints
    key: Ints
    lo: Ints
    hi: Ints
    entry: Ints
    tile: Ints


def finish_any(cells: tuple[Cell, ...], sources: tuple[Source, ...], how: Finishing, pairs: Pairs) -> Values:
    """The values of a feature for each query."""
    first = sources[0]
    if isinstance(first, Fixed):
        lo, hi = (np.searchsorted(pairs.query, np.arange(pairs.queries), side=side) for side in ("left", "right"))
        states = [
            merge_of_ranges(cell.kind, take(source.state, pairs.record), lo, hi, cell.argument)
            for cell, source in zip(cells, sources, strict=True)
            if isinstance(source, Fixed)
        ]
        return finish_fixed(cells, how, states, first.pool)
    expanded = _expand(first, pairs)
    if cells[0].kind in (CellKind.BY, CellKind.ELEMENTS):
        return _nested(cells[0], first, how, expanded)
    return SUMMARIES[cells[0].kind](first, how, expanded)


def _expand(entries: Entries, pairs: Pairs) -> Pairs:
    """From records to their entries."""
    lo, hi = entries.starts[pairs.record], entries.starts[pairs.record + 1]
    lengths = hi - lo
    total = int(lengths.sum())
    offsets = np.repeat(np.cumsum(lengths) - lengths, lengths)
    entry = np.arange(total) - offsets + np.repeat(lo, lengths)
    return Pairs(np.repeat(pairs.query, lengths), entry, np.repeat(pairs.tile, lengths), pairs.queries)


def _group(keys: Ints, pairs: Pairs) -> _Groups:
    order = np.lexsort((keys[pairs.record], pairs.query))
    query, entry, tile = pairs.query[order], pairs.record[order], pairs.tile[order]
    key = keys[entry]
    new = np.ones(len(key), np.bool_)
    new[1:] = (query[1:] != query[:-1]) | (key[1:] != key[:-1])
    lo = np.flatnonzero(new)
    return _Groups(query[lo], key[lo], lo, np.append(lo[1:], len(key)), entry, tile)


def _sums(numbers: Ints, groups: _Groups) -> Ints:
    if not len(groups.lo):
        return np.zeros(0, np.int64)
    sums: Ints = np.add.reduceat(numbers[groups.entry], groups.lo)
    return sums


def _nested(cell: Cell, entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    groups = _group(entries.keys, pairs)
    if cell.kind is CellKind.BY:
        # Keys are ranks of md5: those beyond the bound are the last ones of their query.
        starts = np.searchsorted(groups.query, groups.query, side="left")
        kept = np.flatnonzero(np.arange(len(groups.query)) - starts < BY_KEYS_MAX)
        groups = groups._replace(query=groups.query[kept], key=groups.key[kept], lo=groups.lo[kept], hi=groups.hi[kept])
    lengths = groups.hi - groups.lo
    index = (
        np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(groups.lo, lengths)
    )
    inside = Pairs(
        np.repeat(np.arange(len(groups.lo)), lengths), groups.entry[index], groups.tile[index], len(groups.lo)
    )
    values = finish_any(cell.inner, entries.inner, how.inside(groups.query), inside)
    return _collected(cell, entries, groups, values, pairs.queries)


def _collected(cell: Cell, entries: Entries, groups: _Groups, values: Values, count: int) -> Values:
    """The groups' values as one map or list a query. A key whose value is null is absent."""
    there = np.flatnonzero(values.valid)
    plain = values.to_list()
    query = groups.query[there]
    bounds = np.searchsorted(query, np.arange(count + 1))
    result = np.full(count, None, dtype=object)
    chosen = [plain[i] for i in there.tolist()]
    names: list[Any] = []
    if cell.kind is CellKind.BY:
        assert entries.labels is not None
        names = entries.labels.take(pa.array(groups.key[there])).to_pylist()
    for q in np.flatnonzero(np.diff(bounds)).tolist():
        lo, hi = bounds[q], bounds[q + 1]
        result[q] = dict(zip(names[lo:hi], chosen[lo:hi], strict=True)) if names else chosen[lo:hi]
    return Values(result, np.diff(bounds) > 0)


def _lists(values: Array, query: Ints, count: int) -> Values:
    """One list a query, of values sorted by query."""
    bounds = np.searchsorted(query, np.arange(count + 1))
    result = np.full(count, None, dtype=object)
    plain = values.tolist()
    for q in np.flatnonzero(np.diff(bounds)).tolist():
        result[q] = plain[bounds[q] : bounds[q + 1]]
    return Values(result, np.diff(bounds) > 0)


def _place(query: Ints) -> Ints:
    """The place of each element within its query, where queries are sorted."""
    return np.arange(len(query)) - np.searchsorted(query, query, side="left")


def _values_of(entries: Entries, keys: Ints) -> Array:
    """The values that stand behind keys."""
    if entries.labels is not None:
        return objects(entries.labels.take(pa.array(keys)))
    return _of_bits(from_ordered(keys, entries.type), entries.type)


def _of_bits(bits: Ints, type_name: str) -> Array:
    values: Array = typed(bits.view(np.float64) if type_name == "float64" else bits, type_name)
    return values


def _ordered(first: bool) -> Callable[[Entries, Finishing, Pairs], Values]:
    """The k first or last by order; a list is oldest first, or newest first."""

    def values(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
        columns = [column[pairs.record] for column in entries.order]
        order = np.lexsort((*reversed(columns if first else [~column for column in columns]), pairs.query))
        query = pairs.query[order]
        chosen = np.flatnonzero(_place(query) < how.parameters["k"])
        return _lists(_payload(entries, pairs.record[order][chosen]), query[chosen], pairs.queries)

    return values


def _payload(entries: Entries, entry: Ints) -> Array:
    assert entries.payload is not None
    payload = entries.payload[entry]
    return _of_bits(payload, entries.type) if entries.pool is None else objects(entries.pool.take(pa.array(payload)))


def _last_distinct(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    columns = [column[pairs.record] for column in entries.order]
    newest_first = np.lexsort((*(~column for column in reversed(columns)), pairs.query))
    place = np.empty(len(newest_first), np.int64)
    place[newest_first] = np.arange(len(newest_first))
    groups = _group(entries.keys, pairs)
    # The newest of each value, then the values by that.
    order = np.lexsort((entries.keys[pairs.record], pairs.query))
    if not len(order):
        return Values(np.full(pairs.queries, None, dtype=object), np.zeros(pairs.queries, np.bool_))
    best = np.minimum.reduceat(place[order], groups.lo)
    by_age = np.argsort(best, kind="stable")
    query = groups.query[by_age]
    chosen = np.flatnonzero(_place(query) < how.parameters["k"])
    return _lists(_values_of(entries, groups.key[by_age][chosen]), query[chosen], pairs.queries)


def _extreme(largest: bool) -> Callable[[Entries, Finishing, Pairs], Values]:
    """The k largest or smallest, equal ones as often as they came."""

    def values(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
        assert entries.number is not None
        k = int(how.parameters["k"])
        groups = _group(entries.keys, pairs)
        order = np.lexsort((~groups.key if largest else groups.key, groups.query))
        counts = np.minimum(_sums(entries.number, groups)[order], k)
        query, key = np.repeat(groups.query[order], counts), np.repeat(groups.key[order], counts)
        chosen = np.flatnonzero(_place(query) < k)
        return _lists(_values_of(entries, key[chosen]), query[chosen], pairs.queries)

    return values


def _most_frequent(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    assert entries.number is not None
    groups = _group(entries.keys, pairs)
    order = np.lexsort((groups.key, -_sums(entries.number, groups), groups.query))
    query, key = groups.query[order], groups.key[order]
    chosen = np.flatnonzero(_place(query) < how.parameters["k"])
    answered = _lists(_values_of(entries, key[chosen]), query[chosen], pairs.queries)
    too_many = _too_many(entries, pairs, groups)
    return Values(answered.values, answered.valid & ~too_many, too_many)


def _too_many(entries: Entries, pairs: Pairs, groups: _Groups) -> Bools:
    """Queries one of whose tiles holds more than KEYS_MAX distinct values."""
    result = np.zeros(pairs.queries, np.bool_)
    if not (np.bincount(groups.query, minlength=pairs.queries) > KEYS_MAX).any():
        return result
    found = np.unique(np.stack([pairs.query, pairs.tile, entries.keys[pairs.record]]), axis=1)
    tiles, counts = np.unique(found[:2], axis=1, return_counts=True)
    result[tiles[0][counts > KEYS_MAX]] = True
    return result


def _count_distinct(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    counts = np.bincount(_group(entries.keys, pairs).query, minlength=pairs.queries).astype(np.int64)
    return Values(np.minimum(counts, int(how.parameters["limit"])), np.ones(pairs.queries, np.bool_))


def _approx_count_distinct(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    assert entries.number is not None
    groups = _group(entries.keys, pairs)
    ranks = np.maximum.reduceat(entries.number[groups.entry], groups.lo) if len(groups.lo) else np.zeros(0, np.int64)
    queries, at = np.unique(groups.query, return_inverse=True)
    counts = np.zeros((len(queries), RANK_BITS + 2), np.int64)
    np.add.at(counts, (at, ranks), 1)
    registers = 1 << (64 - RANK_BITS)
    counts[:, 0] = registers - counts.sum(axis=1)
    result = np.zeros(pairs.queries, np.int64)
    result[queries] = [estimate(row) for row in counts]
    valid = np.zeros(pairs.queries, np.bool_)
    valid[queries] = True
    return Values(result, valid)


def _quantile(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    assert entries.number is not None
    groups = _group(entries.keys, pairs)
    key = _collapsed(groups)
    counts = _sums(entries.number, groups)
    below = np.concatenate(([0], np.cumsum(counts)))
    lo, hi = (np.searchsorted(groups.query, np.arange(pairs.queries), side=side) for side in ("left", "right"))
    totals = below[hi] - below[lo]
    rank = np.floor(how.parameters["p"] * np.maximum(totals - 1, 0)).astype(np.int64)
    index = np.searchsorted(below, below[lo] + rank, side="right") - 1
    valid = totals > 0
    if not len(key):
        return Values(np.zeros(pairs.queries), valid)
    return Values(np.where(valid, bucket_values(key[np.clip(index, 0, len(key) - 1)]), 0.0), valid)


def _collapsed(groups: _Groups) -> Ints:
    """Buckets further than the range below their query's largest magnitude of the sign, as the lowest that is kept."""
    key = groups.key
    if not len(key):
        return key
    lo = np.searchsorted(groups.query, groups.query, side="left")
    hi = np.searchsorted(groups.query, groups.query, side="right") - 1
    least, greatest = key[lo], key[hi]
    reach = BUCKETS_MAX - 1
    return np.where(key > 0, np.maximum(key, greatest - reach), np.where(key < 0, np.minimum(key, least + reach), 0))


def _histogram(entries: Entries, how: Finishing, pairs: Pairs) -> Values:
    assert entries.number is not None
    bins = int(how.parameters["bins"])
    counts = np.zeros((pairs.queries, bins), np.int64)
    np.add.at(counts, (pairs.query, entries.keys[pairs.record]), entries.number[pairs.record])
    return Values(object_array(counts.tolist()), counts.sum(axis=1) > 0)


SUMMARIES: dict[CellKind, Callable[[Entries, Finishing, Pairs], Values]] = {
    CellKind.FIRST_K: _ordered(first=True),
    CellKind.LAST_K: _ordered(first=False),
    CellKind.LAST_K_DISTINCT: _last_distinct,
    CellKind.TOP_K: _extreme(largest=True),
    CellKind.BOTTOM_K: _extreme(largest=False),
    CellKind.FREQUENCIES: _most_frequent,
    CellKind.DISTINCT: _count_distinct,
    CellKind.REGISTERS: _approx_count_distinct,
    CellKind.BUCKETS: _quantile,
    CellKind.BINS: _histogram,
}
"""How entries are summed up; cells of cells (BY, ELEMENTS) are finished inside."""
