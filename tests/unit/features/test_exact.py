"""Sums as pairs of words round as fractions do, and saturate as DESIGN has it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from features.exact import doubles_of_pairs, limbs_of_words, saturated_ints, saturated_pairs

NUMBERS = st.one_of(
    st.integers(-(2**126), 2**126),
    st.builds(lambda top, shift, rest: (top << shift) + rest, st.integers(-(2**54), 2**54), st.integers(0, 72),
              st.integers(-1, 1)),
    st.integers(-(2**65), 2**65),
)  # fmt: skip


@given(st.lists(NUMBERS, min_size=1, max_size=8), st.sampled_from([0, 84]))
@example([(1 << 64) - 1, 1 << 64, -(1 << 64), 0, -1, (1 << 126) - 1, (1 << 53) + 1, ((1 << 53) + 1) << 40], 84)
def test_pairs_round_once(numbers: list[int], fraction_bits: int) -> None:
    words = np.array([[number >> 64, number & (2**64 - 1)] for number in numbers], dtype=object)
    high, low = words[:, 0].astype(np.int64), words[:, 1].astype(np.uint64)
    doubles = doubles_of_pairs(high, low.view(np.int64), fraction_bits)
    assert doubles.tolist() == [float(Fraction(number, 2**fraction_bits)) for number in numbers]
    limbs = limbs_of_words(np.stack([low, high.view(np.uint64)], axis=1))
    assert saturated_pairs(high, low.view(np.int64)).tolist() == saturated_ints(limbs).tolist()
    assert saturated_ints(limbs).tolist() == [max(-(2**63), min(2**63 - 1, number)) for number in numbers]
