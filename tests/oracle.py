"""DESIGN §2 as a program: short, slow and obviously right. Every executor is held against it, bit for bit.

Plain Python over plain values, exact where the design says exact. Nothing of headrace is imported: two authors who
read DESIGN §2 would both write this.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
EPOCH = datetime(1970, 1, 1)


class Event(NamedTuple):
    """An event of one entity, with its place in the order inside the entity: (t, source, partition, offset)."""

    t: int
    source: int
    partition: int
    offset: int
    row: dict[str, Any]

    @property
    def order(self) -> tuple[int, int, int, int]:
        return self.t, self.source, self.partition, self.offset


Inputs = list[tuple[Any, Event]]


@dataclass(frozen=True)
class Spec:
    """A feature: what it aggregates over which events. `size_us` None is the lifetime."""

    kind: str
    column: str | None = None
    size_us: int | None = None
    hop_us: int | None = None
    ending_us: int = 0
    where: Callable[[dict[str, Any]], bool | None] = lambda row: True
    by: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    calendar: tuple[str, str, int] | None = None
    """A unit, a zone, and how many periods ago; in place of the window."""

    @property
    def hop(self) -> int:
        if self.hop_us is not None:
            return self.hop_us
        size = self.size_us or 0
        return HOUR_US // 12 if size < 12 * HOUR_US else HOUR_US if size < 12 * DAY_US else DAY_US


def value(spec: Spec, events: Sequence[Event], q: int) -> Any:
    """The feature of an entity at the instant `q`, of all its events in any order."""
    inside = [event for event in sorted(events, key=lambda e: e.order) if covers(spec, event.t, q)]
    found = inputs(spec, [event for event in inside if spec.where(event.row) is True])
    if spec.by is None:
        return _of_inputs(spec, found, q)
    return _by_key(spec, [(event.row[spec.by], (v, event)) for v, event in found if event.row[spec.by] is not None], q)


def _of_inputs(spec: Spec, found: Inputs, q: int) -> Any:
    if spec.kind in ELEMENT_BY_ELEMENT and found and isinstance(found[0][0], dict):
        items = [(key, (x, event)) for v, event in found for key, x in v.items() if x is not None]
        return _by_key(spec, items, q)
    if spec.kind in ELEMENT_BY_ELEMENT and found and isinstance(found[0][0], list):
        whole = [(v, event) for v, event in found if None not in v]
        longest = max((len(v) for v, _ in whole), default=0)
        columns = [[(v[i], event) for v, event in whole if i < len(v)] for i in range(longest)]
        return [_of_inputs(spec, column, q) for column in columns] or None
    if spec.kind in FLATTENING:
        found = [(x, e) for v, e in found for x in (v if isinstance(v, list) else [v]) if x is not None]
    return AGGREGATIONS[spec.kind](found, spec.options | {"q": q})


def _by_key(spec: Spec, items: list[tuple[Any, tuple[Any, Event]]], q: int) -> dict[Any, Any] | None:
    """A value for each of the 256 keys whose md5 is smallest; a key whose value would be null is absent."""
    groups: dict[Any, Inputs] = {}
    for key, each in items:
        groups.setdefault(key, []).append(each)
    kept = sorted(groups, key=lambda key: hashlib.md5(canonical(key)).digest())[:256]
    found = {key: _of_inputs(spec, groups[key], q) for key in kept}
    return {key: each for key, each in found.items() if each is not None} or None


def covers(spec: Spec, t: int, q: int) -> bool:
    """floor(q − w, h) ≤ t < q; with an ending e both ends move by hops; a calendar's local period, up to q."""
    if spec.calendar is not None:
        unit, tz, ago = spec.calendar
        return t < q and label(t, unit, tz) == label_ago(q, unit, tz, ago)
    start = -math.inf if spec.size_us is None else (q - spec.ending_us - spec.size_us) // spec.hop * spec.hop
    end = q if not spec.ending_us else (q - spec.ending_us) // spec.hop * spec.hop
    return start <= t < end


def label(t: int, unit: str, tz: str) -> Any:
    """What a local calendar and clock call the period that holds t; a repeated hour differs in its offset from UTC."""
    local = (EPOCH + timedelta(microseconds=t)).replace(tzinfo=UTC).astimezone(ZoneInfo(tz))
    if unit == "hour":
        return local.date(), local.hour, local.utcoffset()
    if unit == "week":
        return local.date() - timedelta(days=local.weekday())
    return local.date() if unit == "day" else (local.year, local.month)


def label_ago(q: int, unit: str, tz: str, ago: int) -> Any:
    """The label of the n-th period before the one that holds q."""
    for _ in range(ago):
        now = label(q, unit, tz)
        q = q // MINUTE_US * MINUTE_US
        while label(q, unit, tz) == now:
            q -= MINUTE_US if unit == "hour" else HOUR_US // 2
    return label(q, unit, tz)


def inputs(spec: Spec, events: Sequence[Event]) -> list[tuple[Any, Event]]:
    """The non-null inputs in order; an aggregation without an input counts events."""
    if spec.column is None:
        return [(True, event) for event in events]
    return [(event.row[spec.column], event) for event in events if event.row[spec.column] is not None]


def canonical(v: Any) -> bytes:
    """The bytes that are hashed: utf-8; a bool, an integer, a date or an instant as int64; a double as it is."""
    if isinstance(v, str):
        return v.encode()
    if isinstance(v, bytes):
        return v
    if isinstance(v, float):
        return struct.pack("<d", v)
    if isinstance(v, datetime):
        v = (v - EPOCH) // (datetime(1970, 1, 1, 0, 0, 0, 1) - EPOCH)
    elif isinstance(v, date):
        v = (v - EPOCH.date()).days
    return int(v).to_bytes(8, "little", signed=True)


Options = dict[str, Any]


def _values(found: Inputs) -> list[Any]:
    return [v for v, _ in found]


def _unless_empty(compute: Callable[[list[Any], Options], Any]) -> Callable[[Inputs, Options], Any]:
    return lambda found, options: compute(_values(found), options) if found else None


def _sum(values: list[Any], options: Options) -> Any:
    if isinstance(values[0], Decimal):
        return sum(values)
    if isinstance(values[0], float):
        clamped = (max(min(Fraction(x), Fraction(2**76)), Fraction(-(2**76))) for x in values)
        return sum(round(x * 2**84) for x in clamped) / 2**84  # round: half to even; / of integers: rounded once
    return max(min(sum(values), 2**63 - 1), -(2**63))


def _mean(values: list[Any], options: Options) -> float:
    total = sum(values) if isinstance(values[0], int) else _sum(values, options)
    return float(total) / float(len(values))


def _bytes_order(v: Any) -> Any:
    return v.encode() if isinstance(v, str) else v


def _moment(values: list[Any], k: int) -> Fraction:
    mean = Fraction(sum(map(Fraction, values)), len(values))
    return Fraction(sum((Fraction(x) - mean) ** k for x in values), len(values))


def _root(x: Fraction) -> float:
    """√x of a fraction whose float may under- or overflow."""
    scale = 4 ** ((x.numerator.bit_length() - x.denominator.bit_length()) // 2) if x else 1
    return math.sqrt(x / scale) * math.sqrt(scale) if x else 0.0


def _skew(values: list[Any], options: Options) -> float | None:
    m2 = _moment(values, 2)
    return None if m2 == 0 else float(_moment(values, 3) / m2) / _root(m2)


def _kurtosis(values: list[Any], options: Options) -> float | None:
    m2 = _moment(values, 2)
    return None if m2 == 0 else float(_moment(values, 4) / m2**2 - 3)


def _last_k(found: Inputs, options: Options) -> list[Any] | None:
    newest_first = _values(found)[::-1]
    return (list(dict.fromkeys(newest_first)) if options.get("distinct") else newest_first)[: options["k"]] or None


def _most_frequent(values: list[Any], options: Options) -> list[Any]:
    counts = Counter(values)
    return sorted(counts, key=lambda v: (-counts[v], _bytes_order(v)))[: options["k"]]


GAMMA = Fraction(101, 99)
"""DDSketch with relative error 1 %: γ = (1 + 1/100) / (1 − 1/100)."""
BUCKETS_MAX = 2048


def _bucket(x: float) -> int:
    """The i with γ^(i−1) < |x| ≤ γ^i."""
    i = math.floor(math.log(abs(x)) / math.log(101 / 99)) - 2
    exact = Fraction(abs(x))
    while GAMMA**i < exact:
        i += 1
    return i


def _quantile(values: list[Any], options: Options) -> float:
    """The value at rank ⌊p · (n − 1)⌋, as the middle 2 · γ^i / (γ + 1) of its bucket."""
    x = float(sorted(values)[math.floor(options["p"] * (len(values) - 1))])
    if x == 0:
        return 0.0
    same_sign = [_bucket(float(v)) for v in values if v != 0 and (v > 0) == (x > 0)]
    i = max(_bucket(x), max(same_sign) - (BUCKETS_MAX - 1))
    return math.copysign(float(2 * GAMMA**i / (GAMMA + 1)), x)


def _histogram(values: list[Any], options: Options) -> list[int]:
    edges = options["edges"]
    bins = Counter(sum(v >= edge for edge in edges) for v in values)
    return [bins[i] for i in range(len(edges) + 1)]


REGISTER_BITS = 12


def _approx_count_distinct(values: list[Any], options: Options) -> int:
    """HyperLogLog with 2**12 registers; Ertl's improved raw estimator (arXiv:1702.01284, algorithm 6)."""
    m, q = 1 << REGISTER_BITS, 64 - REGISTER_BITS
    registers = [0] * m
    for v in values:
        digest = int.from_bytes(hashlib.md5(canonical(v)).digest()[:8], "big")
        rest = digest % (1 << q)
        index = digest >> q
        registers[index] = max(registers[index], q + 1 - rest.bit_length())
    counts = Counter(registers)
    z = m * _tau(1 - counts[q + 1] / m)
    for k in range(q, 0, -1):
        z = 0.5 * (z + counts[k])
    z += m * _sigma(counts[0] / m)
    return round(m * m / (2 * math.log(2)) / z)


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z = 1.0, x
    while True:
        x, before = x * x, z
        z, y = z + x * y, 2 * y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x, before, y = math.sqrt(x), z, 0.5 * y
        z = z - (1 - x) ** 2 * y
        if z == before:
            return z / 3


def _decayed(found: Inputs, options: Options) -> tuple[float, float]:
    """Σ x · 2^(−(q' − t) / half_life) and Σ of the weights, q' being the instant (of a lag: q − lag)."""
    q = options["q"] - options.get("lag_us", 0)
    weights = [2.0 ** (-(q - event.t) / options["half_life_us"]) for _, event in found]
    return math.fsum(w * v for w, (v, _) in zip(weights, found, strict=True)), math.fsum(weights)


def _decayed_mean(found: Inputs, options: Options) -> float:
    # Whatever the weights are measured from, their ratios are the same: from the newest event none vanishes.
    total, weight = _decayed(found, {**options, "q": found[-1][1].t, "lag_us": 0})
    return total / weight


def latest(events: Sequence[Event], q: int, ttl_us: int | None) -> dict[str, Any] | None:
    """The newest row, its nulls included, if q − ttl ≤ t < q."""
    before = [event for event in events if event.t < q and (ttl_us is None or event.t >= q - ttl_us)]
    return max(before, key=lambda e: e.order).row if before else None


AGGREGATIONS: dict[str, Callable[[Inputs, Options], Any]] = {
    "Count": lambda found, _: len(found),
    "Sum": _unless_empty(_sum),
    "Mean": _unless_empty(_mean),
    "Min": _unless_empty(lambda values, _: min(values, key=_bytes_order)),
    "Max": _unless_empty(lambda values, _: max(values, key=_bytes_order)),
    "First": _unless_empty(lambda values, _: values[0]),
    "Last": _unless_empty(lambda values, _: values[-1]),
    "Variance": _unless_empty(lambda values, _: float(_moment(values, 2))),
    "StdDev": _unless_empty(lambda values, _: _root(_moment(values, 2))),
    "Skew": _unless_empty(_skew),
    "Kurtosis": _unless_empty(_kurtosis),
    "FirstK": _unless_empty(lambda values, o: values[: o["k"]]),
    "LastK": _last_k,
    "TopK": _unless_empty(lambda values, o: sorted(values, key=_bytes_order, reverse=True)[: o["k"]]),
    "BottomK": _unless_empty(lambda values, o: sorted(values, key=_bytes_order)[: o["k"]]),
    "MostFrequent": _unless_empty(_most_frequent),
    "CountDistinct": lambda found, o: min(len(set(_values(found))), o["limit"]),
    "ApproxCountDistinct": _unless_empty(_approx_count_distinct),
    "Quantile": _unless_empty(_quantile),
    "Histogram": _unless_empty(_histogram),
    "DecayedSum": lambda found, o: _decayed(found, o)[0] if found else None,
    "DecayedMean": lambda found, o: _decayed_mean(found, o) if found else None,
}
ELEMENT_BY_ELEMENT = {"Sum", "Mean", "Min", "Max"}
"""Of lists and maps they go element by element."""
FLATTENING = {"FirstK", "LastK", "TopK", "BottomK", "MostFrequent", "CountDistinct", "ApproxCountDistinct"} | {
    "Quantile",
    "Histogram",
}
"""They take the elements of lists one by one."""
APPROXIMATE = {"Variance", "StdDev", "Skew", "Kurtosis", "DecayedSum", "DecayedMean"}
"""Held within 1e-9 (DESIGN §2 'Values'); everything else to the bit."""
