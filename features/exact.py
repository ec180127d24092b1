"""Exact sums, vectorised: integers of up to 192 bits as limbs of 32 bits.

A limb array is int64 of shape (n, limbs), least significant first; its value is Σ limb[k] · 2**(32·k). Limbs may be
unnormalised (negative, or beyond 32 bits), so that they add and subtract without carries: up to 2**31 normalised ones
fit. DESIGN §2 'Exactness': a DOUBLE is clamped to ±2**76, rounded half to even to a multiple of 2**-84, and added; the
sum is rounded to DOUBLE once, half to even.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.cells import CLAMP_EXPONENT, FRACTION_BITS

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Doubles = npt.NDArray[np.float64]

LIMB_BITS = 32
LIMBS_INT = 4
LIMBS_FIXED = 6
_LIMB_MASK = np.int64(0xFFFFFFFF)


def limbs_of_doubles(values: Doubles) -> Ints:
    """Finite doubles as limbs (n, 6) in units of 2**-84."""
    limit = 2.0**CLAMP_EXPONENT
    rest = np.abs(np.clip(values, -limit, limit))
    limbs = np.zeros((len(values), LIMBS_FIXED), np.int64)
    for k in range(LIMBS_FIXED - 1, 0, -1):
        weight = 2.0 ** (LIMB_BITS * k - FRACTION_BITS)
        whole = np.floor(rest / weight)
        rest = rest - whole * weight
        limbs[:, k] = whole.astype(np.int64)
    limbs[:, 0] = np.rint(np.ldexp(rest, FRACTION_BITS)).astype(np.int64)
    limbs[values < 0] *= -1
    return limbs


def limbs_of_ints(values: Ints) -> Ints:
    """int64 as limbs (n, 4)."""
    limbs = np.zeros((len(values), LIMBS_INT), np.int64)
    limbs[:, 0] = values & _LIMB_MASK
    limbs[:, 1] = values >> LIMB_BITS
    return limbs


def limbs_of_words(words: Words) -> Ints:
    """Two's complement words (n, w), least significant first, as limbs (n, 2·w); the top limb carries the sign."""
    halves = np.ascontiguousarray(words).view(np.uint32)
    limbs = halves.astype(np.int64)
    limbs[:, -1] = halves.view(np.int32)[:, -1]
    return limbs


def words_of_limbs(limbs: Ints) -> Words:
    """Limbs as two's complement words; the value must fit."""
    normal = normalise(limbs)
    halves = (normal & _LIMB_MASK).astype(np.uint32)
    return np.ascontiguousarray(halves).view(np.uint64)


def normalise(limbs: Ints) -> Ints:
    """The same values with every limb but the top one in [0, 2**32); the top one carries the sign."""
    normal = limbs.copy()
    for k in range(limbs.shape[1] - 1):
        carry = normal[:, k] >> LIMB_BITS
        normal[:, k] &= _LIMB_MASK
        normal[:, k + 1] += carry
    return normal


def doubles_of_limbs(limbs: Ints, fraction_bits: int = FRACTION_BITS) -> Doubles:
    """Limbs in units of 2**-fraction_bits, rounded once to the nearest double, half to even."""
    normal = normalise(limbs)
    negative = normal[:, -1] < 0
    normal[negative] = normalise(-normal[negative])
    top, exponent = _top_64_bits(normal)
    # A uint64 converts to double with one rounding, half to even; the sticky bit keeps ties honest.
    magnitude = np.ldexp(top.astype(np.float64), exponent - fraction_bits)
    return np.where(negative, -magnitude, magnitude)


def ints_of_limbs(limbs: Ints) -> list[int]:
    """Limbs as Python integers."""
    return [sum(limb << (LIMB_BITS * k) for k, limb in enumerate(row)) for row in limbs.tolist()]


def saturated_ints(limbs: Ints) -> Ints:
    """Limbs (n, 4) as int64, those beyond its range at its ends."""
    normal = normalise(limbs)
    low = (normal[:, 0].astype(np.uint64) | (normal[:, 1].astype(np.uint64) << np.uint64(LIMB_BITS))).view(np.int64)
    high = normal[:, 2] + (normal[:, 3] << LIMB_BITS)
    fits = high == (low >> 63)
    ends = np.where(normal[:, -1] < 0, np.iinfo(np.int64).min, np.iinfo(np.int64).max)
    return np.where(fits, low, ends)


def doubles_of_pairs(high: Ints, low: Ints, fraction_bits: int = FRACTION_BITS) -> Doubles:
    """(high · 2**64 + low) · 2**-fraction_bits, `low` without a sign, rounded once to the nearest double, half to even.

    |high| stays below 2**63.
    """
    sign = high >> 63
    # The magnitude: −x is ~x + 1, and that 1 is carried where the low word is 0.
    small = (low ^ sign).view(np.uint64) - sign.view(np.uint64)
    large = (high ^ sign) + ((sign != 0) & (small == 0))
    magnitude = small.astype(np.float64)
    if large.any():
        # A rounded logarithm may be one too high; 63 bits and a sticky one are still more than a double has.
        shift = 64 - np.frexp(large.astype(np.float64))[1].astype(np.int64)
        up = np.minimum(shift, 63).view(np.uint64)
        down = np.uint64(64) - np.maximum(up, np.uint64(1))
        top = (large.view(np.uint64) << up) | (small >> down) | (small << up != 0)
        magnitude = np.where(large != 0, np.ldexp(top.astype(np.float64), 64 - shift), magnitude)
    return np.ldexp(np.where(sign != 0, -magnitude, magnitude), -fraction_bits)


def saturated_pairs(high: Ints, low: Ints) -> Ints:
    """high · 2**64 + low, `low` without a sign, as int64, those beyond its range at its ends."""
    ends = np.where(high < 0, np.iinfo(np.int64).min, np.iinfo(np.int64).max)
    return np.where(high == low >> 63, low, ends)


def _top_64_bits(normal: Ints) -> tuple[Words, npt.NDArray[np.int64]]:
    """Non-negative normalised limbs as top · 2**exponent; what lies below is or-ed into the lowest bit of top."""
    count = normal.shape[1]
    used = normal != 0
    # The highest limb in use, at least 2, so that three limbs (96 bits) always hold the top 64.
    highest = np.maximum(np.where(used.any(axis=1), count - 1 - used[:, ::-1].argmax(axis=1), 0), 2)
    rows = np.arange(len(normal))
    a, b, c = (normal[rows, highest - k].astype(np.uint64) for k in range(3))
    sticky = (used & (np.arange(count) < (highest - 2)[:, None])).any(axis=1)
    shift = (LIMB_BITS - _bit_length(a)).astype(np.uint64)  # 0 to 32: how far the upper 64 bits move up
    thirty_two = np.uint64(LIMB_BITS)
    top = (((a << thirty_two) | b) << shift) | (c >> (thirty_two - shift))
    lost = (c & ((np.uint64(1) << (thirty_two - shift)) - np.uint64(1))) != 0
    top |= (lost | sticky).astype(np.uint64)
    exponent = LIMB_BITS * (highest - 1) - shift.astype(np.int64)
    return top, exponent


def _bit_length(values: Words) -> npt.NDArray[np.int64]:
    """Bits in use of each value below 2**32: exact, since such a value is exact as a double."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
