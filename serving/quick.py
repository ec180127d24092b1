"""The online read of features over cells of fixed size, for several views of one shape at once.

`features.merge.read_rows` gives the meaning, and every value here equals its (tests/unit/serving/test_quick.py). What
is different is the cost. NumPy's price is one for a call whatever it works on, so that views that differ in their names
alone are read as one, and so are the windows that need the same cells: the records of one row inside one window are a
segment, of each word that is needed the records inside are gathered once, and `ufunc.reduceat` merges all segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from features.cells import FIRST_ZERO_TIME, FRACTION_BITS, LAST_ZERO_TIME, WORDS, is_fixed, record_words, word_offsets
from features.exact import Doubles, doubles_of_limbs, doubles_of_pairs, saturated_ints, saturated_pairs
from features.finish import FINISHES, Values
from features.plan import CellKind, Feature, Finish, ViewPlan, WindowPlan
from features.ranges import Ints, State, put, take
from features.records import DECODE
from features.states import merge_of_ranges, zero
from features.window import tile_key_range
from schemas.row import EMPTY_TILE, HEADER, NO_EVENT, WORD_BYTES
from schemas.types import is_decimal

HEADER_WORDS = HEADER.size // WORD_BYTES
NEWEST_WORD = 1
USED_WORD = 2
"""The word of a header whose lower half is the number of slots used."""
_LOW = np.int64(0xFFFFFFFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_SIGN = np.int64(63)
_PAIR_MAX = 1 << 62
"""What a sum of high words may come to, so that no carry takes it beyond 64 bits."""

REDUCED: dict[CellKind, np.ufunc] = {
    CellKind.COUNT: np.add,
    CellKind.MIN_INT: np.minimum,
    CellKind.MAX_INT: np.maximum,
    CellKind.MIN_FLOAT: np.minimum,
    CellKind.MAX_FLOAT: np.maximum,
}
"""Cells of one word whose merge is a ufunc."""
FLOATS = (CellKind.MIN_FLOAT, CellKind.MAX_FLOAT)
SUMS = (CellKind.SUM_INT, CellKind.SUM_FIXED)
CHOSEN = (CellKind.FIRST, CellKind.LAST)
MERGED = (*REDUCED, *SUMS, *CHOSEN, CellKind.MOMENTS, CellKind.MOMENTS4)
"""Cells that a Shape merges; the last two, and records of one tile that stand apart, by features/states.py."""
VALUES = (CellKind.MIN_INT, CellKind.MAX_INT, CellKind.MIN_FLOAT, CellKind.MAX_FLOAT, *CHOSEN)
TOTALS = {Finish.SUM_FIXED: FRACTION_BITS, Finish.MEAN_FIXED: FRACTION_BITS, Finish.MEAN_INT: 0}
"""Finishes that round an exact sum to a DOUBLE, and the fraction bits of the sum."""


def is_quick(plan: ViewPlan, feature: Feature) -> bool:
    """True where `Shape` reads the feature."""
    cells = [plan.cells[cell] for cell in feature.cells]
    if not all(is_fixed(cell) and cell.kind in MERGED for cell in cells) or is_decimal(feature.type):
        return False
    if feature.finish is Finish.VALUE:
        return cells[0].kind in VALUES
    return feature.finish in FINISHES or feature.finish is Finish.LATEST


def ttl_us_of(plan: ViewPlan) -> int | None:
    """The time to live of a view of latest values; None: it has none, or is no such view."""
    found = plan.features[0].parameters.get("ttl_us") if plan.kind == "latest" and plan.features else None
    return None if found is None else int(found)


class Pairs(NamedTuple):
    """Exact sums as high · 2**64 + low, `low` without a sign."""

    high: Ints
    low: Ints


Merged = State | Pairs
"""A cell's merge: sums that fit are Pairs, everything else is as features/states.py has it."""


class _Answer(NamedTuple):
    """Of which cells, and how, a value is made: the same for all windows of a set."""

    finish: Finish
    type: str
    cells: tuple[int, ...]
    ttl_us: int | None


class _Set:
    """Windows that need the same cells, and the features over them."""

    def __init__(self, windows: list[WindowPlan], cells: tuple[int, ...]) -> None:
        self.windows = windows
        self.cells = cells
        self.features: list[tuple[int, int, _Answer]] = []
        """(number of the feature, number of its window, how it is made)."""


class Shape:
    """What decides how rows are read: the records' layout, the windows, the features; not a view's name.

    `features` are those of `plan` that `is_quick` accepts. Views with equal `key` may be read by one another's Shape.
    """

    def __init__(self, plan: ViewPlan, features: Sequence[Feature]) -> None:
        self.plan = plan
        self.features = tuple(features)
        answers = [_Answer(f.finish, f.type, f.cells, f.parameters.get("ttl_us")) for f in features]  # type: ignore[arg-type]
        self.key = (
            tuple(cell.kind for cell in plan.cells),
            plan.resolutions,
            tuple(zip(answers, [feature.window for feature in features], strict=True)),
        )
        self._words = record_words(plan.cells)
        self._heads = len(plan.resolutions)
        self._offsets = word_offsets(plan.cells)
        self._compared = {cell for feature in features if feature.finish is Finish.LATEST for cell in feature.cells}
        needed: dict[WindowPlan, dict[int, None]] = {}
        for feature in features:
            needed.setdefault(feature.window, {}).update(dict.fromkeys(feature.cells))
        sets: dict[frozenset[int], _Set] = {}
        for window, cells in needed.items():
            sets.setdefault(frozenset(cells), _Set([], tuple(cells))).windows.append(window)
        self._sets = list(sets.values())
        for number, (feature, answer) in enumerate(zip(features, answers, strict=True)):
            own = sets[frozenset(needed[feature.window])]
            own.features.append((number, own.windows.index(feature.window), answer))
        empty_head = (EMPTY_TILE).to_bytes(WORD_BYTES, "little", signed=True) + bytes(WORD_BYTES * (self._words - 1))
        self._no_row = HEADER.pack(bytes(8), NO_EVENT, 0, 0) + empty_head * self._heads

    def parse(self, rows: Sequence[bytes | None], generations: Ints) -> Parsed:
        """Where the records of the rows stand. A row of another generation than its shard's (as int64) is absent."""
        present: Sequence[bytes] = [self._no_row if row is None else row for row in rows] if None in rows else rows  # type: ignore[assignment]
        words = np.frombuffer(b"".join(present), np.int64)
        ends = np.fromiter(map(len, present), np.int64, len(present)).cumsum() // WORD_BYTES
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1]
        newest = words.take(starts + NEWEST_WORD)
        counts = self._heads + (words.take(starts + USED_WORD) & _LOW)
        own = words.take(starts) == generations
        if not own.all():
            newest[~own] = NO_EVENT
            counts[~own] = 0
        ends = counts.cumsum()
        places = (starts + HEADER_WORDS - (ends - counts) * self._words).repeat(counts)
        places += np.arange(0, len(places) * self._words, self._words)
        return Parsed(newest, _Records(words, places, ends, counts, words.take(places)))

    def values(self, parsed: Parsed, instants_us: Ints) -> list[Values]:
        """Each feature's values for each row, at one instant for all (an array of one) or each at its own."""
        records = parsed.records
        rows = len(records.ends)
        values: list[Values] = [_NOTHING] * len(self.features)
        for each in self._sets:
            ranges = [tile_key_range(window, self.plan.resolutions, instants_us) for window in each.windows]
            chosen = records.inside(ranges)
            merged = {cell: self._merged(cell, records.words, chosen) for cell in each.cells}
            asked = instants_us if len(instants_us) == 1 else np.tile(instants_us, len(ranges))
            totals: dict[tuple[int, int], Doubles] = {}
            made: dict[_Answer, Values] = {}
            for number, window, answer in each.features:
                if answer not in made:
                    made[answer] = self._made(answer, merged, totals, asked)
                whole = made[answer]
                if len(ranges) > 1:
                    of = slice(window * rows, (window + 1) * rows)
                    whole = Values(whole.values[of], whole.valid[of])
                values[number] = whole
        return values

    def _merged(self, cell: int, words: Ints, chosen: _Chosen) -> Merged:
        """The merge of each segment's records."""
        kind, first = self.plan.cells[cell].kind, self._offsets[cell]
        assert first is not None
        if not len(chosen.starts):
            return take(zero(kind), np.zeros(chosen.segments, np.int64))
        if kind in CHOSEN and chosen.single and chosen.full is None and cell not in self._compared:
            # Of one record each, of which no other cell asks which one it is: time and value are enough.
            time = words[first:].take(chosen.places)
            return (time, time, time, words[first + 3 :].take(chosen.places))
        gathered = [words[at:].take(chosen.places) for at in range(first, first + WORDS[kind])]
        if kind in REDUCED:
            column = gathered[0].view(np.float64) if kind in FLOATS else gathered[0]
            merged: Merged = (column if chosen.single else REDUCED[kind].reduceat(column, chosen.starts),)
        elif kind in SUMS:
            merged = _pairs(gathered, chosen) or (_limbs(np.stack(gathered), chosen),)
        elif chosen.single and kind in CHOSEN:
            merged = tuple(gathered)
        else:
            state = DECODE[kind](np.stack(gathered, axis=1).view(np.uint64))
            merged = state if chosen.single else merge_of_ranges(kind, state, chosen.starts, chosen.ends)
        if chosen.full is None:
            return merged
        return _spread(kind, merged, chosen.full, chosen.segments)

    def _made(
        self, answer: _Answer, merged: Mapping[int, Merged], totals: dict[tuple[int, int], Doubles], instants_us: Ints
    ) -> Values:
        """The values of all segments. `totals` keeps the sums that were rounded, which means share."""
        cells = [merged[cell] for cell in answer.cells]
        if answer.finish in TOTALS:
            counted = _ints(cells[1][0])
            rounded = (answer.cells[0], TOTALS[answer.finish])
            if rounded not in totals:
                totals[rounded] = _doubles(cells[0], rounded[1])
            total = totals[rounded]
            if answer.finish is not Finish.SUM_FIXED:
                total = total / np.maximum(counted, 1)
            return Values(total, counted > 0)
        if answer.finish is Finish.SUM_INT:
            return Values(_saturated(cells[0]), _ints(cells[1][0]) > 0)
        # Only sums are ever Pairs.
        states = cast(list[State], cells)
        if answer.finish is Finish.VALUE:
            return _value(self.plan.cells[answer.cells[0]].kind, answer.type, states)
        if answer.finish is Finish.LATEST:
            return _latest(answer, states, instants_us)
        return FINISHES[answer.finish](states)


_NOTHING = Values(np.zeros(0), np.zeros(0, np.bool_))


class _Chosen(NamedTuple):
    """Records of segments, a row inside a window each: where they stand, and where each segment begins and ends among
    them. Segments without a record are left out: `full` has the numbers of the others; None: there is no empty one."""

    places: Ints
    starts: Ints
    ends: Ints
    full: Ints | None
    segments: int
    single: bool
    """No segment has more than one record."""
    longest: int
    """The records of the segment that has most."""


class _Records(NamedTuple):
    """All records of all rows: where each begins among the words, where each row's end among the records, how many
    each row has, each record's tile key."""

    words: Ints
    places: Ints
    ends: Ints
    counts: Ints
    tile_keys: Ints

    def inside(self, ranges: Sequence[tuple[Ints, Ints]]) -> _Chosen:
        """The records in ranges of tile keys: a window each, of one range for all rows or one for each."""
        parts: list[Ints] = []
        totals: list[Ints] = []
        before = 0
        for first, last in ranges:
            length = (last - first).view(np.uint64)
            if len(first) > 1:
                first, length = first.repeat(self.counts), length.repeat(self.counts)  # noqa: PLW2901
            # As unsigned numbers, a key below `first` is beyond any length.
            part = np.flatnonzero((self.tile_keys - first).view(np.uint64) < length)
            parts.append(part)
            totals.append(part.searchsorted(self.ends) + before)
            before += len(part)
        inside = parts[0] if len(parts) == 1 else np.concatenate(parts)
        ends = totals[0] if len(totals) == 1 else np.concatenate(totals)
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1]
        counts = ends - starts
        full = None
        if len(counts) and not counts.min():
            full = np.flatnonzero(counts)
            starts, ends = starts.take(full), ends.take(full)
        single = len(inside) == len(starts)
        return _Chosen(self.places.take(inside), starts, ends, full, len(counts), single, int(counts.max(initial=0)))


class Parsed(NamedTuple):
    """Rows, looked at: the newest event of each (NO_EVENT: it is absent), and all their records."""

    newest_us: Ints
    records: _Records


def _spread(kind: CellKind, merged: Merged, full: Ints, segments: int) -> Merged:
    """The merges of the segments that have records, among those that have none."""
    if isinstance(merged, Pairs):
        spread = Pairs(np.zeros(segments, np.int64), np.zeros(segments, np.int64))
        put(spread, full, merged)
        return spread
    state = take(zero(kind), np.zeros(segments, np.int64))
    put(state, full, merged)
    return state


def _pairs(words: Sequence[Ints], chosen: _Chosen) -> Pairs | None:
    """Exact sums of two's complement words, least significant first; None where they might not fit into a pair.

    A third word is a sign and nothing else unless a sum is beyond 2**43 (of DOUBLEs), and then the limbs add it.
    """
    low, high = words[0], words[1]
    if len(words) > 2 and not np.array_equal(words[2], high >> _SIGN):
        return None
    limit = _PAIR_MAX // chosen.longest
    if high.max() > limit or high.min() < -limit:
        return None
    if chosen.single:
        return Pairs(high, low)
    # The sum of the low words is known but for multiples of 2**64; the sum of their upper halves tells how many.
    total = np.add.reduceat(low, chosen.starts)
    halves = np.add.reduceat(low.view(np.uint64) >> _HALF, chosen.starts)
    from_below = ((total.view(np.uint64) >> _HALF) - halves) & _LOW_HALF
    carries = ((halves + from_below) >> _HALF).view(np.int64)
    return Pairs(np.add.reduceat(high, chosen.starts) + carries, total)


def _limbs(words: Ints, chosen: _Chosen) -> Ints:
    """Exact sums of two's complement words as limbs (rows, 2 · words) of features/exact.py."""
    limbs = np.empty((len(chosen.starts), 2 * len(words)), np.int64)
    low, high = words & _LOW, words >> np.int64(_HALF)
    # Only the top word carries a sign.
    high[:-1] &= _LOW
    if chosen.single:
        limbs[:, 0::2], limbs[:, 1::2] = low.T, high.T
    else:
        limbs[:, 0::2] = np.add.reduceat(low, chosen.starts, axis=1).T
        limbs[:, 1::2] = np.add.reduceat(high, chosen.starts, axis=1).T
    return limbs


def _doubles(sums: Merged, fraction_bits: int) -> Doubles:
    if isinstance(sums, Pairs):
        return doubles_of_pairs(sums.high, sums.low, fraction_bits)
    return doubles_of_limbs(_ints(sums[0]), fraction_bits)


def _saturated(sums: Merged) -> Ints:
    return saturated_pairs(sums.high, sums.low) if isinstance(sums, Pairs) else saturated_ints(_ints(sums[0]))


def _value(kind: CellKind, type_name: str, cells: Sequence[State]) -> Values:
    if kind in CHOSEN:
        time, values = _ints(cells[0][0]), _ints(cells[0][3])
        valid = time != (FIRST_ZERO_TIME if kind is CellKind.FIRST else LAST_ZERO_TIME)
        return Values(_typed(values.view(np.float64) if type_name == "float64" else values, type_name), valid)
    return Values(_typed(cells[0][0], type_name), _ints(cells[1][0]) > 0)


def _latest(answer: _Answer, cells: Sequence[State], instants_us: Ints) -> Values:
    """The value of the newest row, where that has one and is not older than the ttl."""
    newest, found = cells
    valid = (newest[0] == found[0]) & (newest[1] == found[1]) & (newest[2] == found[2])
    valid &= _ints(found[0]) != LAST_ZERO_TIME
    if answer.ttl_us is not None:
        valid &= _ints(newest[0]) >= instants_us - answer.ttl_us
    values = _ints(found[3])
    return Values(_typed(values.view(np.float64) if answer.type == "float64" else values, answer.type), valid)


def _typed(values: npt.NDArray[Any], type_name: str) -> npt.NDArray[Any]:
    """The words of values in their type."""
    if type_name == "bool":
        flags: npt.NDArray[np.bool_] = values != 0
        return flags
    if type_name == "timestamp":
        return values.view("datetime64[us]")
    return values.astype("datetime64[D]") if type_name == "date" else values


def _ints(array: npt.NDArray[Any]) -> Ints:
    return array
