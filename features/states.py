"""The NumPy lowering of the cells: zero and merge of states, vectorised.

A state is a tuple of arrays of one length (features/ranges.py):

    count               n
    sum_int, sum_fixed  limbs (n, 4), (n, 6): features/exact.py
    min, max            value (int64 or float64); of text and bytes: the rank of the value in a sorted pool
    first, last         time, position, offset, payload (the value's bits, or its index in a pool)
    moments             n, mean, M2, min, max
    moments4            n, mean, M2, M3, M4, min, max
    decayed             newest time, sum, weight; its merge depends on the cell's argument, the half-life
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from features.cells import FIRST_ZERO_TIME, INT64_MAX, INT64_MIN, LAST_ZERO_TIME
from features.exact import LIMBS_FIXED, LIMBS_INT
from features.plan import CellKind
from features.ranges import Ints, Merge, MergeTree, PrefixSums, State

SUMS = frozenset({CellKind.COUNT, CellKind.SUM_INT, CellKind.SUM_FIXED})
"""Cells whose merge is an exact addition, so that a range may be a difference of prefix sums."""


def zero(kind: CellKind) -> State:
    """The identity of a cell's merge, as a state of one record."""
    return ZEROS[kind]()


def merge(kind: CellKind, a: State, b: State, argument: int = 0) -> State:
    """Record by record, the merge of two states; `argument` is the cell's."""
    if kind in SUMS:
        return (a[0] + b[0],)  # type: ignore[operator]
    return _merge_of(kind, argument)(a, b)


def merge_of_ranges(kind: CellKind, state: State, lo: Ints, hi: Ints, argument: int = 0) -> State:
    """For each query the merge of records lo ≤ i < hi; `argument` is the cell's."""
    return Ranges(kind, state, argument).of(lo, hi)


class Ranges:
    """Merges of ranges of one cell's records. What it prepares serves every window that is read from them."""

    def __init__(self, kind: CellKind, state: State, argument: int = 0) -> None:
        self.state = state
        self._sums = PrefixSums(state[0]) if kind in SUMS else None  # type: ignore[arg-type]
        self._tree = None if kind in SUMS else MergeTree(_merge_of(kind, argument), zero(kind), state)

    def of(self, lo: Ints, hi: Ints) -> State:
        """For each query the merge of records lo ≤ i < hi."""
        if self._sums is not None:
            return (self._sums.of(lo, hi),)
        assert self._tree is not None
        return self._tree.of(lo, hi)


def _merge_of(kind: CellKind, argument: int) -> Merge:
    return _decayed(argument) if kind is CellKind.DECAYED else MERGES[kind]


def _minimum(a: State, b: State) -> State:
    return (np.minimum(a[0], b[0]),)


def _maximum(a: State, b: State) -> State:
    return (np.maximum(a[0], b[0]),)


def _earlier(a: State, b: State) -> State:
    return _choose(_before(b, a), b, a)


def _later(a: State, b: State) -> State:
    return _choose(_before(a, b), b, a)


def _choose(condition: npt.NDArray[np.bool_], yes: State, no: State) -> State:
    return tuple(np.where(condition, y, n) for y, n in zip(yes, no, strict=True))


def _before(a: State, b: State) -> npt.NDArray[np.bool_]:
    """Lexicographic order of (time, position, offset)."""
    (time_a, position_a, offset_a), (time_b, position_b, offset_b) = a[:3], b[:3]
    same_time = time_a == time_b
    by_offset = (position_a == position_b) & (offset_a < offset_b)  # type: ignore[operator]
    result: npt.NDArray[np.bool_] = (time_a < time_b) | (  # type: ignore[operator]
        same_time & ((position_a < position_b) | by_offset)  # type: ignore[operator]
    )
    return result


def _merge_moments(a: State, b: State) -> State:
    """Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979)."""
    n_a, mean_a, m2_a, min_a, max_a = a
    n_b, mean_b, m2_b, min_b, max_b = b
    n = n_a + n_b  # type: ignore[operator]
    share = n_b / np.maximum(n, 1)
    delta = mean_b - mean_a  # type: ignore[operator]
    both = (n_a > 0) & (n_b > 0)  # type: ignore[operator]
    mean = np.where(n_a == 0, mean_b, np.where(n_b == 0, mean_a, mean_a + delta * share))
    m2 = m2_a + m2_b + np.where(both, delta * delta * (n_a * share), 0.0)  # type: ignore[operator]
    return (n, mean, m2, np.minimum(min_a, min_b), np.maximum(max_a, max_b))


def _merge_moments4(a: State, b: State) -> State:
    """Pébay, Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Moments (2008)."""
    n_a, mean_a, m2_a, m3_a, m4_a, min_a, max_a = (np.asarray(part, np.float64) for part in a)
    n_b, mean_b, m2_b, m3_b, m4_b, min_b, max_b = (np.asarray(part, np.float64) for part in b)
    n = np.maximum(n_a + n_b, 1)
    both = (n_a > 0) & (n_b > 0)
    d = np.where(both, mean_b - mean_a, 0.0)
    share_a, share_b = n_a / n, n_b / n
    mean = np.where(n_a == 0, mean_b, np.where(n_b == 0, mean_a, mean_a + d * share_b))
    m2 = m2_a + m2_b + d**2 * (n_a * share_b)
    m3 = m3_a + m3_b + d**3 * (n_a * share_b * (share_a - share_b)) + 3 * d * (share_a * m2_b - share_b * m2_a)
    m4 = (
        m4_a
        + m4_b
        + d**4 * (n_a * share_b * (share_a**2 - share_a * share_b + share_b**2))
        + 6 * d**2 * (share_a**2 * m2_b + share_b**2 * m2_a)
        + 4 * d * (share_a * m3_b - share_b * m3_a)
    )
    count = a[0] + b[0]  # type: ignore[operator]
    return (count, mean, m2, m3, m4, np.minimum(min_a, min_b), np.maximum(max_a, max_b))


def _decayed(half_life_us: int) -> Merge:
    """Sums that decay, each measured at its own newest event: both moved to the newer of the two."""

    def merge_decayed(a: State, b: State) -> State:
        newest = np.maximum(a[0], b[0])
        weight_a = np.exp2((a[0] - newest) / half_life_us)  # type: ignore[operator]
        weight_b = np.exp2((b[0] - newest) / half_life_us)  # type: ignore[operator]
        with np.errstate(over="ignore"):
            total, weight = (a[k] * weight_a + b[k] * weight_b for k in (1, 2))
        return (newest, total, weight)

    return merge_decayed


MERGES: dict[CellKind, Merge] = {
    CellKind.MIN_INT: _minimum,
    CellKind.MIN_FLOAT: _minimum,
    CellKind.MIN_BYTES: _minimum,
    CellKind.MAX_INT: _maximum,
    CellKind.MAX_FLOAT: _maximum,
    CellKind.MAX_BYTES: _maximum,
    CellKind.FIRST: _earlier,
    CellKind.FIRST_BYTES: _earlier,
    CellKind.LAST: _later,
    CellKind.LAST_BYTES: _later,
    CellKind.MOMENTS: _merge_moments,
    CellKind.MOMENTS4: _merge_moments4,
}
"""Cells whose merge takes no argument."""


def _ints(*values: int) -> Callable[[], State]:
    return lambda: tuple(np.array([value], np.int64) for value in values)


ZEROS: dict[CellKind, Callable[[], State]] = {
    CellKind.COUNT: _ints(0),
    CellKind.SUM_INT: lambda: (np.zeros((1, LIMBS_INT), np.int64),),
    CellKind.SUM_FIXED: lambda: (np.zeros((1, LIMBS_FIXED), np.int64),),
    CellKind.MIN_INT: _ints(INT64_MAX),
    CellKind.MAX_INT: _ints(INT64_MIN),
    CellKind.MIN_FLOAT: lambda: (np.array([np.inf]),),
    CellKind.MAX_FLOAT: lambda: (np.array([-np.inf]),),
    CellKind.MIN_BYTES: _ints(INT64_MAX),
    CellKind.MAX_BYTES: _ints(INT64_MIN),
    CellKind.FIRST: _ints(FIRST_ZERO_TIME, 0, 0, 0),
    CellKind.FIRST_BYTES: _ints(FIRST_ZERO_TIME, 0, 0, 0),
    CellKind.LAST: _ints(LAST_ZERO_TIME, 0, 0, 0),
    CellKind.LAST_BYTES: _ints(LAST_ZERO_TIME, 0, 0, 0),
    CellKind.MOMENTS: lambda: (
        np.zeros(1, np.int64),
        np.zeros(1),
        np.zeros(1),
        np.array([np.inf]),
        np.array([-np.inf]),
    ),
    CellKind.MOMENTS4: lambda: (
        np.zeros(1, np.int64),
        *(np.zeros(1) for _ in range(4)),
        np.array([np.inf]),
        np.array([-np.inf]),
    ),
    CellKind.DECAYED: lambda: (np.array([LAST_ZERO_TIME], np.int64), np.zeros(1), np.zeros(1)),
}
