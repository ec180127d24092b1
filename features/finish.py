"""Merged cells -> values: the formulas of the aggregations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.cells import FIRST_ZERO_TIME, FRACTION_BITS, INT64_MAX, INT64_MIN, LAST_ZERO_TIME
from features.exact import doubles_of_limbs, saturated_ints
from features.plan import CellKind, Feature, Finish, ViewPlan
from features.ranges import Ints, State
from schemas.types import arrow_type

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Values:
    """A feature's values for n queries; where `valid` is False the value is null and `values` holds anything."""

    values: Array
    valid: Bools

    def to_list(self) -> list[Any]:
        """Python values, None for null; instants are naive UTC datetimes."""
        if self.valid.all():
            return list(self.values.tolist())
        return [value if ok else None for value, ok in zip(self.values.tolist(), self.valid.tolist(), strict=True)]

    def to_arrow(self, type_name: str) -> pa.Array:
        """As an Arrow array of the feature's type."""
        return pa.array(self.values, type=arrow_type(type_name), mask=~self.valid, from_pandas=False)

    def where(self, condition: Bools) -> Values:
        """The same values, null where the condition does not hold."""
        return Values(self.values, self.valid & condition)


def finish(plan: ViewPlan, feature: Feature, states: list[State], pool: pa.Array | None) -> Values:
    """The feature's values from the merged states of its cells; `pool` holds text and bytes that states point to."""
    if feature.finish is Finish.VALUE:
        return _value(plan.cells[feature.cells[0]].kind, feature.type, states, pool)
    return FINISHES[feature.finish](states)


def _count(states: list[State]) -> Values:
    count = _int(states[0][0])
    return Values(count, np.ones(len(count), np.bool_))


def _sum_int(states: list[State]) -> Values:
    return Values(saturated_ints(_int(states[0][0])), _int(states[1][0]) > 0)


def _sum_fixed(states: list[State]) -> Values:
    return Values(doubles_of_limbs(_int(states[0][0])), _int(states[1][0]) > 0)


def _mean(fraction_bits: int) -> Callable[[list[State]], Values]:
    """float64(sum) / float64(n), of the exact sum: where Sum saturates, Mean does not."""

    def mean(states: list[State]) -> Values:
        count = _int(states[1][0])
        total = doubles_of_limbs(_int(states[0][0]), fraction_bits)
        return Values(total / np.maximum(count, 1), count > 0)

    return mean


def _variance(states: list[State]) -> Values:
    n, _, m2, least, greatest = states[0]
    count = _int(n)
    constant = least == greatest
    with np.errstate(over="ignore", invalid="ignore"):
        variance = np.where(constant, 0.0, np.maximum(m2, 0.0) / np.maximum(count, 1))
    return Values(variance, (count > 0) & np.isfinite(variance))


def _stddev(states: list[State]) -> Values:
    variance = _variance(states)
    with np.errstate(invalid="ignore"):
        return Values(np.sqrt(variance.values), variance.valid)


FINISHES: dict[Finish, Callable[[list[State]], Values]] = {
    Finish.COUNT: _count,
    Finish.SUM_INT: _sum_int,
    Finish.SUM_FIXED: _sum_fixed,
    Finish.MEAN_INT: _mean(0),
    Finish.MEAN_FIXED: _mean(FRACTION_BITS),
    Finish.VARIANCE: _variance,
    Finish.STDDEV: _stddev,
}


def _value(kind: CellKind, type_name: str, states: list[State], pool: pa.Array | None) -> Values:
    if kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES):
        rank = _int(states[0][0])
        return _from_pool(rank, (rank != INT64_MAX) & (rank != INT64_MIN), pool)
    if kind in (CellKind.MIN_INT, CellKind.MAX_INT, CellKind.MIN_FLOAT, CellKind.MAX_FLOAT):
        return Values(_typed(states[0][0], type_name), _int(states[1][0]) > 0)
    time, payload = _int(states[0][0]), _int(states[0][3])
    valid = (time != FIRST_ZERO_TIME) & (time != LAST_ZERO_TIME)
    if kind in (CellKind.FIRST_BYTES, CellKind.LAST_BYTES):
        return _from_pool(payload, valid, pool)
    return Values(_typed(payload.view(np.float64) if type_name == "float64" else payload, type_name), valid)


def _typed(values: Array, type_name: str) -> Array:
    if type_name == "bool":
        return np.not_equal(values, 0)
    if type_name == "timestamp":
        return values.view("datetime64[us]")
    return values.astype("datetime64[D]") if type_name == "date" else values


def _from_pool(index: Ints, valid: Bools, pool: pa.Array | None) -> Values:
    values = np.full(len(index), None, dtype=object)
    if pool is not None and len(pool) and valid.any():
        values[valid] = pool.take(pa.array(index[valid])).to_pylist()
    return Values(values, valid)


def _int(array: Array) -> Ints:
    return array
