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


def sum_ranges(values: Ints, lo: Ints, hi: Ints) -> Ints:
    """Σ values[lo:hi] of an int64 array (n,) or (n, limbs) for each query; the sums must fit."""
    prefix = np.zeros((len(values) + 1, *values.shape[1:]), np.int64)
    np.cumsum(values, axis=0, out=prefix[1:])
    return prefix.take(hi, axis=0) - prefix.take(lo, axis=0)


def merge_ranges(merge: Merge, zero: State, state: State, lo: Ints, hi: Ints) -> State:
    """The merge of state[lo:hi] for each query, in order; `zero` (arrays of length 1) where the range is empty."""
    queries = len(lo)
    left = take(zero, np.zeros(queries, np.int64))
    right = take(zero, np.zeros(queries, np.int64))
    lo, hi = lo.copy(), np.maximum(lo, hi)
    level = state
    while True:
        odd = np.flatnonzero((lo & 1 == 1) & (lo < hi))
        if len(odd):
            put(left, odd, merge(take(left, odd), take(level, lo[odd])))
            lo[odd] += 1
        odd = np.flatnonzero((hi & 1 == 1) & (lo < hi))
        if len(odd):
            hi[odd] -= 1
            put(right, odd, merge(take(level, hi[odd]), take(right, odd)))
        if not (lo < hi).any():
            return merge(left, right)
        lo >>= 1
        hi >>= 1
        pairs = len(level[0]) // 2
        level = merge(tuple(a[0 : 2 * pairs : 2] for a in level), tuple(a[1 : 2 * pairs : 2] for a in level))


def take(state: State, index: Ints) -> State:
    """The states of some records."""
    return tuple(array.take(index, axis=0) for array in state)


def put(state: State, index: Ints, values: State) -> None:
    """Overwrites the states of some records."""
    for array, new in zip(state, values, strict=True):
        array[index] = new
