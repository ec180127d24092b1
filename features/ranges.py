"""Merging ranges of records, vectorised: for each query the merge of records lo ≤ i < hi.

Ranges may overlap and be empty. Sums, being exact, are differences of prefix sums; everything else goes through a tree
of pairwise merges (level k holds the merges of 2**k neighbours), so that a query takes at most two nodes a level and
a record is merged into a query's answer exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
State: TypeAlias = tuple[npt.NDArray[np.generic], ...]
"""A cell's state for n records: arrays of length n, in the cell's own order."""
Merge: TypeAlias = Callable[[State, State], State]


class PrefixSums:
    """Sums of ranges of an int64 array (n,) or (n, limbs); every sum must fit."""

    def __init__(self, values: Ints) -> None:
        self._prefix = np.zeros((len(values) + 1, *values.shape[1:]), np.int64)
        np.cumsum(values, axis=0, out=self._prefix[1:])

    def of(self, lo: Ints, hi: Ints) -> Ints:
        """Σ values[lo:hi] for each query."""
        return self._prefix.take(hi, axis=0) - self._prefix.take(lo, axis=0)


class MergeTree:
    """Merges of ranges of records; a level is made when a query first needs it, and serves all queries after it."""

    def __init__(self, merge: Merge, zero: State, state: State) -> None:
        self._merge = merge
        self._zero = zero
        self._levels = [state]

    def of(self, lo: Ints, hi: Ints) -> State:
        """The merge of state[lo:hi] for each query, in order; zero where the range is empty."""
        none = np.zeros(len(lo), np.int64)
        left, right = take(self._zero, none), take(self._zero, none)
        lo, hi = lo.copy(), np.maximum(lo, hi)
        number = 0
        while True:
            level = self._level(number)
            odd = np.flatnonzero((lo & 1 == 1) & (lo < hi))
            if len(odd):
                put(left, odd, self._merge(take(left, odd), take(level, lo[odd])))
                lo[odd] += 1
            odd = np.flatnonzero((hi & 1 == 1) & (lo < hi))
            if len(odd):
                hi[odd] -= 1
                put(right, odd, self._merge(take(level, hi[odd]), take(right, odd)))
            if not (lo < hi).any():
                return self._merge(left, right)
            lo >>= 1
            hi >>= 1
            number += 1

    def _level(self, number: int) -> State:
        while len(self._levels) <= number:
            last = self._levels[-1]
            end = len(last[0]) // 2 * 2
            self._levels.append(self._merge(tuple(a[0:end:2] for a in last), tuple(a[1:end:2] for a in last)))
        return self._levels[number]


def take(state: State, index: Ints) -> State:
    """The states of some records."""
    return tuple(array.take(index, axis=0) for array in state)


def put(state: State, index: Ints, values: State) -> None:
    """Overwrites the states of some records."""
    for array, new in zip(state, values, strict=True):
        array[index] = new
