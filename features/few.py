"""The deltas of a few events, in NumPy: planning the SQL of `features/sql.py` takes longer than folding them.

Only the user's expressions need DuckDB. What comes out is the same to the bit (tests/unit/features/test_few.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.cells import WORDS, record_words, word_offsets
from features.deltas import Deltas, Ints, Words, int64_of
from features.exact import words_of_limbs
from features.plan import LIFETIME, CellKind, ViewPlan
from features.records import event_state
from schemas.row import RESOLUTION_SHIFT, TILE_BIAS, shard_of

EVENTS_MAX = 2_000
"""Of more, DuckDB takes less time, and lets other threads work meanwhile."""

_Reduce = Callable[[npt.NDArray[np.generic], Ints], Words]


def _bits(ufunc: np.ufunc) -> _Reduce:
    return lambda values, starts: ufunc.reduceat(values, starts).view(np.uint64)[:, None]


def _limbs(values: npt.NDArray[np.generic], starts: Ints) -> Words:
    return words_of_limbs(np.add.reduceat(values, starts, axis=0))


REDUCE: dict[CellKind, _Reduce] = {
    CellKind.COUNT: _bits(np.add),
    CellKind.SUM_INT: _limbs,
    CellKind.SUM_FIXED: _limbs,
    CellKind.MIN_INT: _bits(np.minimum),
    CellKind.MAX_INT: _bits(np.maximum),
    CellKind.MIN_FLOAT: _bits(np.minimum),
    CellKind.MAX_FLOAT: _bits(np.maximum),
}
"""The words of each group of states of single events."""


def is_for(plan: ViewPlan) -> bool:
    """True where all cells of the plan are folded here."""
    kinds = {cell.kind for cell in plan.cells}
    return kinds <= REDUCE.keys() and all(resolution.calendar is None for resolution in plan.resolutions)


def few_deltas(plan: ViewPlan, events: pa.Table, counts: dict[str, int]) -> Deltas:
    """The deltas of prepared events (`sql.events`), in any order."""
    encoded = events["key"].combine_chunks().dictionary_encode()
    distinct: list[str] = encoded.dictionary.to_pylist()
    shards = np.array([shard_of(key, plan.shards) for key in distinct], np.int32)
    # The rows' order: by shard, then by key.
    ranks = np.empty(len(distinct), np.int64)
    by_rank = sorted(range(len(distinct)), key=lambda code: (shards[code], distinct[code].encode()))
    ranks[by_rank] = np.arange(len(distinct))
    times = int64_of(events["t"])
    rows = np.tile(ranks[encoded.indices.to_numpy(zero_copy_only=False)], len(plan.resolutions))
    tile_keys = np.concatenate([_tile_keys(number, r.hop_us, times) for number, r in enumerate(plan.resolutions)])
    order = np.lexsort((tile_keys, rows))
    rows, tile_keys = rows[order], tile_keys[order]
    changes = np.flatnonzero((np.diff(rows) != 0) | (np.diff(tile_keys) != 0)) + 1
    firsts = np.concatenate(([0], changes)).astype(np.int64) if len(rows) else np.zeros(0, np.int64)
    records = np.zeros((len(firsts), record_words(plan.cells)), np.uint64)
    records[:, 0] = tile_keys[firsts].view(np.uint64)
    members = order % len(times) if len(times) else order
    for cell, at in zip(plan.cells, word_offsets(plan.cells), strict=True):
        if at is not None and len(firsts):
            (state,), _ = event_state(cell, events)
            records[:, at : at + WORDS[cell.kind]] = REDUCE[cell.kind](state[members], firsts)
    starts = np.searchsorted(rows[firsts], np.arange(len(distinct) + 1)).astype(np.int64)
    newest = np.full(len(distinct), np.iinfo(np.int64).min)
    np.maximum.at(newest, rows, times[members])
    keys = [distinct[code] for code in by_rank]
    return Deltas(keys, shards[by_rank], starts, newest, records, None, counts)


def count_events(plan: ViewPlan, events: pa.Table) -> dict[str, int]:
    """Events that counted, and the nulls of each input."""
    return {"counted": len(events)} | {f"nulls_x{n}": events[f"x{n}"].null_count for n in range(len(plan.inputs))}


def _tile_keys(resolution: int, hop_us: int, times: Ints) -> Ints:
    base = (resolution << RESOLUTION_SHIFT) + TILE_BIAS
    return np.full(len(times), base) if hop_us == LIFETIME else base + times // hop_us
