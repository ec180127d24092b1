"""Finding a query's events: records sorted by (entity, time), queries an entity and an instant each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.ranges import Ints

BITS = 63


class Lookup:
    """Finds, for queries (entity, instant), the first record of the entity at or after the instant.

    (entity, time) is one integer, so that finding is `searchsorted`; it is fastest where queries are sorted likewise.
    """

    def __init__(self, records: pa.Table, keys: pa.Array) -> None:
        record_keys = records["key"].combine_chunks()
        starts = _starts(record_keys)
        entities = record_keys.take(pa.array(starts))
        found = pc.index_in(keys, entities)
        self._seen = pc.is_valid(found).to_numpy(zero_copy_only=False)
        self._codes = pc.fill_null(found, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        times = records["t"].to_numpy()
        codes = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(times))))
        self._least = int(times.min()) if len(times) else 0
        span = int(times.max()) - self._least + 1 if len(times) else 1
        self._ranks: Ints | None = None
        self._shift = max(span.bit_length(), 1)
        if self._shift + max(len(starts), 1).bit_length() > BITS:
            # Too many entities over too long a time: the time's rank takes the time's place.
            self._ranks = np.unique(times)
            self._shift = len(self._ranks).bit_length()
        self._order = (codes << self._shift) | self._place(times)

    def at(self, instant_us: Ints) -> Ints:
        """The index of that record; the end of the entity's records where there is none, 0 for an unknown entity."""
        wanted = (self._codes << self._shift) + self._place(instant_us)
        return np.where(self._seen, np.searchsorted(self._order, wanted), 0)

    def _place(self, instant_us: Ints) -> Ints:
        """An instant among the records' own; what lies behind them all is the next entity's place."""
        if self._ranks is not None:
            return np.searchsorted(self._ranks, instant_us)
        return np.clip(instant_us - self._least, 0, 1 << self._shift)


def _starts(keys: pa.Array) -> Ints:
    if not len(keys):
        return np.zeros(0, np.int64)
    changed = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate(([0], np.flatnonzero(changed) + 1)).astype(np.int64)
