"""What the sketches and moments promise, measured."""

from __future__ import annotations

import math
import random
from datetime import datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from features import ApproxCountDistinct, CountDistinct, Entity, FeatureView, Kurtosis, MostFrequent, Quantile, Skew
from features.sketches import RANK_BITS, REGISTER_BITS, bucket_keys, bucket_values, estimate, hash_ranks
from schemas.event import Event

GAMMA = Fraction(101, 99)


class Sample(Event, topic="sketch_samples", time="at", key=["k"]):
    at: datetime
    k: str
    x: float
    text: str | None


k = Entity("k")
view = FeatureView(
    "sketches",
    entity=k,
    source=Sample,
    features={
        "p50": Quantile("x", 0.5),
        "p99": Quantile("x", 0.99),
        "distinct": CountDistinct("text"),
        "approx": ApproxCountDistinct("text"),
        "frequent": MostFrequent("text", 2),
        "skew": Skew("x"),
        "kurtosis": Kurtosis("x"),
    },
)


def samples(x: np.ndarray, text: list[str] | None = None) -> pa.Table:
    return pa.table(
        {"at": [datetime(2024, 1, 1)] * len(x), "k": ["a"] * len(x), "x": x, "text": text or [None] * len(x)},
        schema=pa.schema({"at": pa.timestamp("us"), "k": pa.string(), "x": pa.float64(), "text": pa.string()}),
    )


def test_a_bucket_is_the_one_whose_bounds_hold_the_number() -> None:
    rng = random.Random(3)
    numbers = [1.0, float(GAMMA), 5e-324, 1.7976931348623157e308, 2.0**-1022]
    numbers += [10 ** rng.uniform(-30, 30) for _ in range(200)]
    for number, key in zip(numbers, bucket_keys(np.array(numbers)).tolist(), strict=True):
        i = key - 40_000
        assert GAMMA ** (i - 1) < Fraction(number) <= GAMMA**i
    assert (bucket_keys(-np.array(numbers)) == -bucket_keys(np.array(numbers))).all()
    assert bucket_keys(np.array([0.0])).tolist() == [0]


def test_a_bucket_stands_for_its_numbers_within_one_percent() -> None:
    numbers = np.concatenate([10 ** np.random.default_rng(1).uniform(-9, 9, 5_000), [-3.0, 0.0]])
    stood_for = bucket_values(bucket_keys(numbers))
    assert (np.abs(stood_for - numbers) <= 0.01 * np.abs(numbers) * (1 + 1e-12)).all()


def test_quantiles_are_within_one_percent_of_the_value_at_the_rank() -> None:
    x = np.random.default_rng(5).lognormal(3, 2, 10_001)
    answer = view.preview(samples(x)).to_pylist()[0]
    ordered = np.sort(x)
    for name, p in (("p50", 0.5), ("p99", 0.99)):
        exact = ordered[math.floor(p * (len(x) - 1))]
        assert abs(answer[name] - exact) <= 0.01 * exact * (1 + 1e-12)


@pytest.mark.parametrize("count", [100, 3_000, 12_000, 200_000])
def test_the_standard_error_of_distinct_counts_is_what_is_said(count: int) -> None:
    rng = np.random.default_rng(count)
    errors = []
    for _ in range(40):
        registers, ranks = hash_ranks(rng.integers(0, 1 << 64, count, dtype=np.uint64))
        largest = np.zeros(1 << REGISTER_BITS, np.int64)
        np.maximum.at(largest, registers, ranks)
        errors.append(estimate(np.bincount(largest, minlength=RANK_BITS + 2)) / count - 1)
    assert math.sqrt(np.mean(np.square(errors))) < 1.3 * 1.04 / math.sqrt(1 << REGISTER_BITS)


def test_distinct_values_and_their_bounds() -> None:
    text = [f"t{n % 1_500}" for n in range(4_000)]
    answer = view.preview(samples(np.ones(4_000), text)).to_pylist()[0]
    assert answer["distinct"] == 1_500
    assert abs(answer["approx"] - 1_500) < 0.06 * 1_500
    assert answer["frequent"] is None, "more than 1,000 distinct values in a tile have no exact answer"
    few = view.preview(samples(np.ones(5), ["b", "a", "a", "b", "c"])).to_pylist()[0]
    assert few["frequent"] == ["a", "b"]


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_skew_and_kurtosis_hold_far_from_zero(mean: float) -> None:
    x = np.random.default_rng(7).exponential(1.0, 500) + mean
    values = [Fraction(each) for each in x.tolist()]
    centre = sum(values, Fraction()) / len(values)
    m2, m3, m4 = (sum(((v - centre) ** power for v in values), Fraction()) / len(values) for power in (2, 3, 4))
    answer = view.preview(samples(x)).to_pylist()[0]
    skew, kurtosis = float(m3 / m2) / math.sqrt(m2), float(m4 / m2**2 - 3)
    assert abs(answer["skew"] - skew) <= 1e-9 * max(1, abs(skew))
    assert abs(answer["kurtosis"] - kurtosis) <= 1e-9 * max(1, abs(kurtosis))
