"""The numbers of the sketches, each the same on every machine: no logarithm of a library decides a bucket.

Quantile is a DDSketch (Masson, Rim and Lee, VLDB 2019) of relative error 1 %: a positive x falls into the bucket i with
γ^(i−1) < x ≤ γ^i, γ = 101/99, and stands for the bucket's middle 2 · γ^i / (γ + 1). Zero has a bucket of its own and
negative numbers mirror positive ones. Of each sign the 2,048 buckets below the largest magnitude are kept; what is
smaller falls into the lowest of them. ApproxCountDistinct is a HyperLogLog of 2**12 registers over the first 64 bits of
md5, with Ertl's improved raw estimator (arXiv:1702.01284, algorithm 6): a standard error of 1.04 / √2**12 = 1.6 %.
"""

from __future__ import annotations

import decimal
import math
from functools import cache

import numpy as np
import numpy.typing as npt

from features.ranges import Ints

Doubles = npt.NDArray[np.float64]

KEYS_MAX = 1_000
"""Distinct values of a tile up to which MostFrequent is exact."""
BY_KEYS_MAX = 256
"""Keys of a `by`."""
ELEMENTS_MAX = 4_096
"""Elements of a list that is aggregated element by element."""
BUCKETS_MAX = 2_048
"""Buckets of a sign: they span γ^2048 = 10^17."""
BUCKET_OFFSET = 40_000
"""Bucket i of a positive number has the key i + BUCKET_OFFSET, of a negative one its negative; zero has 0."""
REGISTER_BITS = 12
RANK_BITS = 64 - REGISTER_BITS
_GAMMA = (101, 99)


@cache
def _boundaries() -> tuple[int, Doubles, Doubles]:
    """The first index, each γ^i rounded down to a double, and each bucket's middle, for all i that doubles fall into.

    x ≤ γ^i exactly where x ≤ the largest double that is at most γ^i.
    """
    context = decimal.Context(prec=60, Emin=-999_999, Emax=999_999)
    gamma = context.divide(decimal.Decimal(_GAMMA[0]), decimal.Decimal(_GAMMA[1]))
    log = math.log(_GAMMA[0] / _GAMMA[1])
    first = math.floor(math.log(5e-324) / log) - 1
    last = math.ceil(math.log(1.7976931348623157e308) / log) + 1
    # 2 / (γ + 1) = 99 / 100 for γ = 101 / 99.
    half = context.divide(decimal.Decimal(2), context.add(gamma, 1))
    power = context.power(gamma, first)
    bounds, middles = [], []
    for _ in range(first, last + 1):
        bounds.append(_rounded_down(power))
        middles.append(float(context.multiply(power, half)))
        power = context.multiply(power, gamma)
    return first, np.array(bounds), np.array(middles)


def _rounded_down(power: decimal.Decimal) -> float:
    nearest = float(power)
    if math.isinf(nearest) or decimal.Decimal(nearest) > power:
        return math.nextafter(nearest, -math.inf)
    return nearest


def bucket_keys(values: Doubles) -> Ints:
    """The bucket of each finite number, as a key that rises with the number."""
    first, bounds, _ = _boundaries()
    magnitude = np.searchsorted(bounds, np.abs(values), side="left") + (first + BUCKET_OFFSET)
    return np.where(values == 0, 0, np.where(values > 0, magnitude, -magnitude))


def bucket_values(keys: Ints) -> Doubles:
    """The number that each bucket stands for."""
    first, _, middles = _boundaries()
    index = np.clip(np.abs(keys) - BUCKET_OFFSET - first, 0, len(middles) - 1)
    return np.where(keys == 0, 0.0, np.where(keys > 0, middles[index], -middles[index]))


def hash_ranks(digests: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Register and rank of each hash: its upper bits, and one more than the leading zeros of the lower ones."""
    register = (digests >> np.uint64(RANK_BITS)).astype(np.int64)
    rest = digests & np.uint64((1 << RANK_BITS) - 1)
    # Below 2**52: exact as a double, whose exponent is the number of bits.
    bits = np.frexp(rest.astype(np.float64))[1].astype(np.int64)
    return register, RANK_BITS + 1 - bits


def estimate(counts: Ints) -> int:
    """The number of distinct values, from the number of registers of each rank 0 … RANK_BITS + 1."""
    registers = 1 << REGISTER_BITS
    z = registers * _tau(1 - int(counts[RANK_BITS + 1]) / registers)
    for rank in range(RANK_BITS, 0, -1):
        z = 0.5 * (z + int(counts[rank]))
    z += registers * _sigma(int(counts[0]) / registers)
    return round(registers * registers / (2 * math.log(2)) / z)


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3
