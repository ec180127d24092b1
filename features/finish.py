"""Merged cells -> values: the formulas of the aggregations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.cells import FIRST_ZERO_TIME, FRACTION_BITS, INT64_MAX, INT64_MIN, LAST_ZERO_TIME
from features.exact import doubles_of_limbs, ints_of_limbs, saturated_ints
from features.plan import Cell, CellKind, Finish
from features.ranges import Ints, State
from schemas.types import arrow_type, decimal_scale, element_type, is_decimal, map_types

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


class Values(NamedTuple):
    """A feature's values for n queries; where `valid` is False the value is null and `values` holds anything."""

    values: Array
    valid: Bools
    invalid: Bools | None = None
    """Where the value is null because it can't be given: status INVALID."""

    def to_list(self) -> list[Any]:
        """Python values, None for null; instants are naive UTC datetimes."""
        if self.valid.all():
            return list(self.values.tolist())
        return [value if ok else None for value, ok in zip(self.values.tolist(), self.valid.tolist(), strict=True)]

    def to_arrow(self, type_name: str) -> pa.Array:
        """As an Arrow array of the feature's type."""
        if map_types(type_name) is not None:
            pairs = [None if value is None else list(value.items()) for value in self.to_list()]
            return pa.array(pairs, type=arrow_type(type_name))
        if self.values.dtype == object:
            return pa.array(self.to_list(), type=arrow_type(type_name))
        return pa.array(self.values, type=arrow_type(type_name), mask=~self.valid, from_pandas=False)

    def where(self, condition: Bools) -> Values:
        """The same values, null where the condition does not hold."""
        return Values(self.values, self.valid & condition, self.invalid)

    @classmethod
    def concat(cls, parts: Sequence[Values]) -> Values:
        """The values of some queries, then of others."""
        if len(parts) == 1:
            return parts[0]
        invalid = [np.zeros(len(p.valid), np.bool_) if p.invalid is None else p.invalid for p in parts]
        return cls(
            np.concatenate([p.values for p in parts]), np.concatenate([p.valid for p in parts]), np.concatenate(invalid)
        )


class Finishing(NamedTuple):
    """How cells become values: the finish, the type of a value, the parameters, and each query's instant."""

    finish: Finish
    type: str
    parameters: Mapping[str, int | float]
    instant_us: Ints
    lag_us: int = 0

    def inside(self, query: Ints) -> Finishing:
        """The same for the values inside a map or a list, of which each belongs to a query."""
        types = map_types(self.type)
        inner = types[1] if types else element_type(self.type) or self.type
        return self._replace(type=inner, instant_us=self.instant_us[query])


def finish_fixed(cells: Sequence[Cell], how: Finishing, states: list[State], pool: pa.Array | None) -> Values:
    """The values from the merged states of cells of fixed size; `pool` holds text and bytes that states point to."""
    if how.finish is Finish.VALUE:
        return _value(cells[0].kind, how.type, states, pool)
    if how.finish is Finish.LATEST:
        return _latest(cells[1].kind, how, states, pool)
    if how.finish in MEASURED:
        return MEASURED[how.finish](states, how)
    return FINISHES[how.finish](states)


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


def _skew(states: list[State]) -> Values:
    n, _, m2, m3, _, least, greatest = states[0]
    count = np.maximum(_int(n), 1)
    with np.errstate(all="ignore"):
        skew = (m3 / count) / (m2 / count) ** 1.5
    return Values(skew, (_int(n) > 0) & (least != greatest) & np.isfinite(skew))


def _kurtosis(states: list[State]) -> Values:
    n, _, m2, _, m4, least, greatest = states[0]
    with np.errstate(all="ignore"):
        kurtosis = np.maximum(_int(n), 1) * m4 / (m2 * m2) - 3.0  # type: ignore[operator]
    return Values(kurtosis, (_int(n) > 0) & (least != greatest) & np.isfinite(kurtosis))


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
    Finish.SKEW: _skew,
    Finish.KURTOSIS: _kurtosis,
}


def _sum_decimal(states: list[State], how: Finishing) -> Values:
    valid = _int(states[1][0]) > 0
    totals = ints_of_limbs(_int(states[0][0]))
    return Values(_decimals(totals, int(how.parameters["scale"])), valid)


def _mean_decimal(states: list[State], how: Finishing) -> Values:
    """float64 of the exact sum, rounded once, divided by the count."""
    count = _int(states[1][0])
    scale = 10 ** int(how.parameters["scale"])
    totals = np.array([total / scale for total in ints_of_limbs(_int(states[0][0]))], np.float64)
    return Values(totals / np.maximum(count, 1), count > 0)


def _decayed_sum(states: list[State], how: Finishing) -> Values:
    newest, total, weight = states[0]
    age = _int(newest) - (how.instant_us - how.lag_us)
    with np.errstate(all="ignore"):
        value = total * np.exp2(age / how.parameters["half_life_us"])
    return Values(value, (weight > 0) & np.isfinite(value))  # type: ignore[operator]


def _decayed_mean(states: list[State], how: Finishing) -> Values:
    _, total, weight = states[0]
    with np.errstate(all="ignore"):
        value = total / weight  # type: ignore[operator]
    return Values(value, (weight > 0) & np.isfinite(value))  # type: ignore[operator]


MEASURED: dict[Finish, Callable[[list[State], Finishing], Values]] = {
    Finish.SUM_DECIMAL: _sum_decimal,
    Finish.MEAN_DECIMAL: _mean_decimal,
    Finish.DECAYED_SUM: _decayed_sum,
    Finish.DECAYED_MEAN: _decayed_mean,
}
"""Formulas that take parameters or the instant."""


def _latest(kind: CellKind, how: Finishing, states: list[State], pool: pa.Array | None) -> Values:
    """The value of the newest row, where it has one and is not older than the ttl."""
    newest, found = states[0], states[1]
    same = np.ones(len(_int(newest[0])), np.bool_)
    for a, b in zip(newest[:3], found[:3], strict=True):
        same &= a == b
    ttl_us = how.parameters.get("ttl_us")
    young = same if ttl_us is None else same & (_int(newest[0]) >= how.instant_us - int(ttl_us))
    return _value(kind, how.type, [found], pool).where(young)


def _decimals(units: Sequence[int], scale: int) -> Array:
    result = np.empty(len(units), dtype=object)
    result[:] = [_CONTEXT.scaleb(Decimal(each), -scale) for each in units]
    return result


_CONTEXT = Context(prec=40)
"""Enough for the 38 digits of a decimal."""


def _value(kind: CellKind, type_name: str, states: list[State], pool: pa.Array | None) -> Values:
    if kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES):
        rank = _int(states[0][0])
        return _from_pool(rank, (rank != INT64_MAX) & (rank != INT64_MIN), pool)
    if kind in (CellKind.MIN_INT, CellKind.MAX_INT, CellKind.MIN_FLOAT, CellKind.MAX_FLOAT):
        return Values(typed(states[0][0], type_name), _int(states[1][0]) > 0)
    time, payload = _int(states[0][0]), _int(states[0][3])
    valid = (time != FIRST_ZERO_TIME) & (time != LAST_ZERO_TIME)
    if kind in (CellKind.FIRST_BYTES, CellKind.LAST_BYTES):
        return _from_pool(payload, valid, pool)
    return Values(typed(payload.view(np.float64) if type_name == "float64" else payload, type_name), valid)


def typed(values: Array, type_name: str) -> Array:
    if type_name == "bool":
        return np.not_equal(values, 0)
    if is_decimal(type_name):
        return _decimals(values.tolist(), decimal_scale(type_name))
    if type_name == "timestamp":
        return values.view("datetime64[us]")
    return values.astype("datetime64[D]") if type_name == "date" else values


def objects(array: pa.Array) -> Array:
    """An array of Python values; a map is a dict."""
    values = array.to_pylist()
    if pa.types.is_map(array.type):
        values = [None if value is None else dict(value) for value in values]
    return object_array(values)


def object_array(values: Sequence[Any]) -> Array:
    """An array of one dimension, also of lists of one length."""
    result: Array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        result[i] = value
    return result


def _from_pool(index: Ints, valid: Bools, pool: pa.Array | None) -> Values:
    values = np.full(len(index), None, dtype=object)
    if pool is not None and len(pool) and valid.any():
        values[valid] = objects(pool.take(pa.array(index[valid])))
    return Values(values, valid)


def _int(array: Array) -> Ints:
    return array
