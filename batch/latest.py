"""Latest values at past instants: of each query one event matters, so events need not be sorted with all they carry.

Their keys and instants alone are read and sorted; then the events that were found are read with what they carry. That
is several times faster than batch/chunks.py, which sorts whole events, but all instants stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence

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

EVENTS_MAX = 16_000_000
"""Instants in memory at once: some 60 bytes each while they are sorted, so at most a GB."""
NATIVE_KEYS = ("int64", "string")


def latest_values(
    plan: ViewPlan,
    features: Sequence[str],
    rows: pa.Table,
    instants: Ints,
    kernel: Kernel,
    relations: Sequence[Relation | None],
) -> list[Values] | None:
    """The features of the entities with the rows' join key, at one instant each; None where this can't be done here.

    It can't for composite keys, for events that can be read but once, and for more of them than EVENTS_MAX.
    """
    if plan.kind != "latest" or len(plan.keys) != 1 or plan.keys[0].type not in NATIVE_KEYS:
        return None
    if any(isinstance(relation, pa.RecordBatchReader) for relation in relations):
        return None
    keys = rows[plan.keys[0].name].combine_chunks()
    encoded = keys.dictionary_encode()
    events = kernel.instants(plan, relations, encoded.dictionary, EVENTS_MAX + 1)
    if len(events) > EVENTS_MAX:
        return None
    places = int64_of(encoded.indices)
    found, newest = _Instants(events).newest_before(places, instants)
    found &= pc.is_valid(encoded).to_numpy(zero_copy_only=False)
    del events
    asked = np.flatnonzero(found)
    records = kernel.events_at(plan, relations, keys.take(pa.array(asked)), newest.take(asked))
    index = np.zeros(len(instants), np.int64)
    index[asked] = _last_of_each(records)
    return read_newest(plan, records.take(pa.array(index, mask=~found)), found, instants, features)


class _Instants:
    """Events sorted by entity and instant, which are one integer."""

    def __init__(self, events: pa.Table) -> None:
        keys, times = int64_of(events["key"]), int64_of(events["t"])
        entities = int(keys.max(initial=-1)) + 1
        self._ranks: Ints | None = None
        self._least = int(times.min()) if len(times) else 0
        self._shift = (int(times.max()) - self._least + 1 if len(times) else 1).bit_length()
        if self._shift + entities.bit_length() > BITS:
            # Too many entities over too long a time: the instant's rank takes its place.
            self._ranks = np.unique(times)
            self._shift = len(self._ranks).bit_length()
        numbers = keys << self._shift
        numbers += times - self._least if self._ranks is None else np.searchsorted(self._ranks, times)
        numbers.sort()
        self._sorted = numbers

    def newest_before(self, keys: Ints, instants: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """For each query whether its entity has an event before the instant, and the newest one's instant."""
        wanted = (keys << self._shift) + self._place(instants)
        # Neighbours in the order lie near each other in memory: searching for them one after the other is faster.
        in_turn = np.argsort(wanted)
        before = np.empty(len(wanted), np.int64)
        before[in_turn] = np.searchsorted(self._sorted, wanted.take(in_turn)) - 1
        if not len(self._sorted):
            return np.zeros(len(wanted), np.bool_), before
        number = self._sorted.take(np.maximum(before, 0))
        found = (before >= 0) & (number >> self._shift == keys)
        place = number & ((1 << self._shift) - 1)
        return found, place + self._least if self._ranks is None else self._ranks.take(place)

    def _place(self, instants: Ints) -> Ints:
        """An instant among the events' own; what lies behind them all is the next entity's place."""
        if self._ranks is not None:
            return np.searchsorted(self._ranks, instants)
        return np.clip(instants - self._least, 0, 1 << self._shift)


def _last_of_each(records: pa.Table) -> Ints:
    """The number of the last event of each instant that was asked for, in the order inside an entity (DESIGN §2)."""
    asked, positions, offsets = (int64_of(records[name]) for name in ("key", "position", "offset"))
    order = np.lexsort((offsets, positions, asked))
    last: Ints = order[np.append(np.diff(asked.take(order)) != 0, True)] if len(order) else order
    return last
