"""Latest values at past instants: of each query one event matters, so events need not be sorted with all they carry.

Their keys and instants alone are sorted, and what a query finds is taken from where it lies. That is several times
faster than batch/chunks.py, which sorts whole events, but all that is read stands in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.deltas import int64_of
from features.finish import Values
from features.kernel import Kernel, Relation
from features.lookup import BITS
from features.merge import read_newest
from features.plan import ViewPlan
from features.ranges import Ints

CELLS_MAX = 64_000_000
"""Events times columns in memory at once: half a GB."""
COLUMNS_BESIDE = 5
"""Key, instant, position and offset of an event, and its place in the order."""
NATIVE_KEYS = ("int64", "string")


def latest_values(
    plan: ViewPlan,
    features: Sequence[str],
    rows: pa.Table,
    instants: Ints,
    kernel: Kernel,
    relations: Sequence[Relation | None],
    threads: int,
) -> list[Values] | None:
    """The features of the entities with the rows' join key, at one instant each; None where this can't be done here.

    It can't for composite keys, for events that can be read but once, and for more than fit (CELLS_MAX).
    """
    if plan.kind != "latest" or len(plan.keys) != 1 or plan.keys[0].type not in NATIVE_KEYS:
        return None
    if any(isinstance(relation, pa.RecordBatchReader) for relation in relations):
        return None
    encoded = pc.cast(rows[plan.keys[0].name], rows[plan.keys[0].name].type).combine_chunks().dictionary_encode()
    records_max = CELLS_MAX // (len(plan.inputs) + COLUMNS_BESIDE)
    records = kernel.unsorted_records(plan, relations, encoded.dictionary, records_max + 1)
    if len(records) > records_max:
        return None
    known = pc.is_valid(encoded).to_numpy(zero_copy_only=False)
    places = int64_of(encoded.indices)
    found, index = _Instants(records, threads).newest_before(places, instants)
    found &= known
    return read_newest(plan, records.take(pa.array(index, mask=~found)), found, instants, features)


class _Instants:
    """The order inside each entity (DESIGN §2), entities one after the other: (entity, instant) is one integer."""

    def __init__(self, records: pa.Table, threads: int) -> None:
        self._records = records
        keys, times = int64_of(records["key"]), int64_of(records["t"])
        entities = int(keys.max(initial=-1)) + 1
        self._ranks: Ints | None = None
        self._least = int(times.min()) if len(times) else 0
        self._shift = (int(times.max()) - self._least + 1 if len(times) else 1).bit_length()
        if self._shift + entities.bit_length() > BITS:
            # Too many entities over too long a time: the instant's rank takes its place.
            self._ranks = np.unique(times)
            self._shift = len(self._ranks).bit_length()
        self._numbers = keys << self._shift
        self._numbers += times - self._least if self._ranks is None else np.searchsorted(self._ranks, times)
        self._order, self._sorted = _sorted_by(self._numbers, keys, entities, threads)

    def newest_before(self, keys: Ints, instants: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """For each query whether its entity has an event before the instant, and the number of the newest one."""
        wanted = (keys << self._shift) + self._place(instants)
        # Neighbours in the order lie near each other in memory: searching for them one after the other is faster.
        in_turn = np.argsort(wanted)
        before = np.empty(len(wanted), np.int64)
        before[in_turn] = np.searchsorted(self._sorted, wanted.take(in_turn)) - 1
        if not len(self._order):
            return np.zeros(len(wanted), np.bool_), before
        at = np.maximum(before, 0)
        number = self._sorted.take(at)
        found = (before >= 0) & (number >> self._shift == keys)
        if (found & (self._sorted.take(np.maximum(at - 1, 0)) == number) & (at > 0)).any():
            self._order_ties()
        return found, self._order.take(at)

    def _order_ties(self) -> None:
        """Events of one instant: by their places in the log. Few logs have some, and sorting by three costs thrice."""
        places = (int64_of(self._records[name]) for name in ("offset", "position"))
        self._order = np.lexsort((*places, self._numbers))

    def _place(self, instants: Ints) -> Ints:
        """An instant among the records' own; what lies behind them all is the next entity's place."""
        if self._ranks is not None:
            return np.searchsorted(self._ranks, instants)
        return np.clip(instants - self._least, 0, 1 << self._shift)


def _sorted_by(numbers: Ints, keys: Ints, entities: int, threads: int) -> tuple[Ints, Ints]:
    """The order of the numbers, and the numbers in it; they come by keys first: each thread has a range of keys."""

    def part(number: int) -> tuple[Ints, Ints]:
        low, high = entities * number // threads, entities * (number + 1) // threads
        mine = np.flatnonzero((keys >= low) & (keys < high))
        own = numbers.take(mine)
        order = np.argsort(own)
        return mine.take(order), own.take(order)

    with ThreadPoolExecutor(threads) as pool:
        orders, sorted_ = zip(*pool.map(part, range(threads)), strict=True)
    return np.concatenate(orders), np.concatenate(sorted_)
