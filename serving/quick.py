"""The online read of features over cells of fixed size, for several views of one shape at once.

`features.merge.read_rows` gives the meaning, and every value here equals its (tests/unit/serving/test_quick.py). What
is different is the cost: rows are looked at where Redis's reply put them, only the words of records inside a window are
gathered, a row's records being one segment they are merged by `ufunc.reduceat`, and views that differ in their names
alone are read as one, since NumPy's price is one for a call whatever it works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.cells import FIRST_ZERO_TIME, FRACTION_BITS, LAST_ZERO_TIME, WORDS, is_fixed, record_words, word_offsets
from features.exact import doubles_of_limbs, saturated_ints
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
_HALF = np.int64(32)

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


class Total(NamedTuple):
    """An exact sum that is to be rounded: of one cell over one window."""

    window: int
    cell: int
    fraction_bits: int


class Shape:
    """What decides how rows are read: the records' layout, the windows, the features; not a view's name.

    `features` are those of `plan` that `is_quick` accepts. Views with equal `key` may be read by one another's Shape.
    """

    def __init__(self, plan: ViewPlan, features: Sequence[Feature]) -> None:
        self.plan = plan
        self.features = tuple(features)
        self.key = (
            tuple(cell.kind for cell in plan.cells),
            plan.resolutions,
            tuple((f.finish, f.type, f.cells, f.window, f.parameters.get("ttl_us")) for f in features),
        )
        self.windows: list[WindowPlan] = list(dict.fromkeys(feature.window for feature in features))
        self._words = record_words(plan.cells)
        self._heads = len(plan.resolutions)
        at = word_offsets(plan.cells)
        self._cells: list[dict[int, slice]] = []
        self._offsets: list[Ints] = []
        for window in self.windows:
            needed = dict.fromkeys(cell for f in features if f.window == window for cell in f.cells)
            places: dict[int, slice] = {}
            offsets: list[int] = []
            for cell in needed:
                first = at[cell]
                assert first is not None
                places[cell] = slice(len(offsets), len(offsets) + WORDS[plan.cells[cell].kind])
                offsets += range(first, first + WORDS[plan.cells[cell].kind])
            self._cells.append(places)
            self._offsets.append(np.array(offsets, np.int64)[:, None])
        self._totals = list(
            dict.fromkeys(
                Total(self.windows.index(f.window), f.cells[0], TOTALS[f.finish])
                for f in features
                if f.finish in TOTALS
            )
        )
        empty_head = (EMPTY_TILE).to_bytes(WORD_BYTES, "little", signed=True) + bytes(WORD_BYTES * (self._words - 1))
        self._no_row = HEADER.pack(bytes(8), NO_EVENT, 0, 0) + empty_head * self._heads

    def parse(self, rows: Sequence[bytes | None], generations: Ints) -> Parsed:
        """Where the records of the rows stand. A row of another generation than its shard's (as int64) is absent."""
        no_row = self._no_row
        present = [no_row if row is None else row for row in rows]
        words = np.frombuffer(b"".join(present), np.int64)
        sizes = np.array([len(row) for row in present], np.int64) // WORD_BYTES
        starts = sizes.cumsum() - sizes
        own = words.take(starts) == generations
        newest = words.take(starts + NEWEST_WORD)
        counts = self._heads + (words.take(starts + USED_WORD) & _LOW)
        if not own.all():
            newest[~own] = NO_EVENT
            counts[~own] = 0
        ends = counts.cumsum()
        places = (starts + HEADER_WORDS - (ends - counts) * self._words).repeat(counts)
        places += np.arange(0, len(places) * self._words, self._words)
        owners = np.arange(len(rows)).repeat(counts)
        return Parsed(newest, _Records(words, places, owners, words.take(places), len(rows)))

    def values(self, parsed: Parsed, instants_us: Ints) -> list[Values]:
        """Each feature's values for each row, at one instant for all (an array of one) or each at its own."""
        words = parsed.records.words
        states: dict[tuple[int, int], State] = {}
        for number, window in enumerate(self.windows):
            first, last = tile_key_range(window, self.plan.resolutions, instants_us)
            chosen = parsed.records.inside(first, last)
            gathered = words.take(self._offsets[number] + chosen.places)
            for cell, at in self._cells[number].items():
                states[number, cell] = _merged(self.plan.cells[cell].kind, gathered[at], chosen)
        return self._finished(states, parsed.records.rows, instants_us)

    def _finished(self, states: dict[tuple[int, int], State], count: int, instants_us: Ints) -> list[Values]:
        totals = self._rounded(states, count)
        answers = []
        for feature in self.features:
            window = self.windows.index(feature.window)
            cells = [states[window, cell] for cell in feature.cells]
            if feature.finish in TOTALS:
                counted = _ints(cells[1][0])
                total = totals[Total(window, feature.cells[0], TOTALS[feature.finish])]
                if feature.finish is not Finish.SUM_FIXED:
                    total = total / np.maximum(counted, 1)
                answers.append(Values(total, counted > 0))
            elif feature.finish is Finish.VALUE:
                answers.append(_value(self.plan.cells[feature.cells[0]].kind, feature.type, cells))
            elif feature.finish is Finish.LATEST:
                answers.append(_latest(feature, cells, instants_us))
            elif feature.finish is Finish.SUM_INT:
                answers.append(Values(saturated_ints(_ints(cells[0][0])), _ints(cells[1][0]) > 0))
            else:
                answers.append(FINISHES[feature.finish](cells))
        return answers

    def _rounded(self, states: dict[tuple[int, int], State], count: int) -> dict[Total, npt.NDArray[np.float64]]:
        """All exact sums as DOUBLEs: those of the same unit in one go."""
        rounded: dict[Total, npt.NDArray[np.float64]] = {}
        for bits in {total.fraction_bits for total in self._totals}:
            same = [total for total in self._totals if total.fraction_bits == bits]
            limbs = np.concatenate([_ints(states[total.window, total.cell][0]) for total in same])
            doubles = doubles_of_limbs(limbs, bits)
            rounded |= {total: doubles[n * count : (n + 1) * count] for n, total in enumerate(same)}
        return rounded


class _Chosen(NamedTuple):
    """The records of a window: where each begins, and the segment of each row that has any."""

    places: Ints
    starts: Ints
    full: Ints | None
    """The rows that have records; None: all."""
    counts: Ints
    rows: int
    single: bool
    """No row has more than one record."""


class _Records(NamedTuple):
    """All records of all rows: where each begins among the words, the row that owns it, its tile key."""

    words: Ints
    places: Ints
    owners: Ints
    tile_keys: Ints
    rows: int

    def inside(self, first: Ints, last: Ints) -> _Chosen:
        if len(first) > 1:
            first, last = first.take(self.owners), last.take(self.owners)
        # As unsigned numbers, a key below `first` is beyond any length.
        inside = np.flatnonzero((self.tile_keys - first).view(np.uint64) < (last - first).view(np.uint64))
        counts = np.bincount(self.owners.take(inside), minlength=self.rows)
        full = np.flatnonzero(counts)
        starts = (counts.cumsum() - counts).take(full)
        everyone = len(full) == self.rows
        return _Chosen(
            self.places.take(inside), starts, None if everyone else full, counts, self.rows, len(inside) == len(full)
        )


class Parsed(NamedTuple):
    """Rows, looked at: the newest event of each (NO_EVENT: it is absent), and all their records."""

    newest_us: Ints
    records: _Records


def _merged(kind: CellKind, words: Ints, chosen: _Chosen) -> State:
    """The merge of each row's records: `words` has a line for each word of the cell."""
    if not len(chosen.starts):
        return take(zero(kind), np.zeros(chosen.rows, np.int64))
    if kind in REDUCED:
        column = words[0].view(np.float64) if kind in FLOATS else words[0]
        state: State = (column if chosen.single else REDUCED[kind].reduceat(column, chosen.starts),)
    elif kind in SUMS:
        state = (_limbs(words, chosen),)
    elif chosen.single:
        state = DECODE[kind](words.T.view(np.uint64))
    else:
        ends = chosen.starts + (chosen.counts if chosen.full is None else chosen.counts.take(chosen.full))
        state = merge_of_ranges(kind, DECODE[kind](words.T.view(np.uint64)), chosen.starts, ends)
    if chosen.full is None:
        return state
    spread = take(zero(kind), np.zeros(chosen.rows, np.int64))
    put(spread, chosen.full, state)
    return spread


def _limbs(words: Ints, chosen: _Chosen) -> Ints:
    """Exact sums of two's complement words as limbs (rows, 2 · words) of features/exact.py."""
    limbs = np.empty((len(chosen.starts), 2 * len(words)), np.int64)
    low, high = words & _LOW, words >> _HALF
    # Only the top word carries a sign.
    high[:-1] &= _LOW
    if chosen.single:
        limbs[:, 0::2], limbs[:, 1::2] = low.T, high.T
    else:
        limbs[:, 0::2] = np.add.reduceat(low, chosen.starts, axis=1).T
        limbs[:, 1::2] = np.add.reduceat(high, chosen.starts, axis=1).T
    return limbs


def _value(kind: CellKind, type_name: str, cells: list[State]) -> Values:
    if kind in CHOSEN:
        time, values = _ints(cells[0][0]), _ints(cells[0][3])
        valid = time != (FIRST_ZERO_TIME if kind is CellKind.FIRST else LAST_ZERO_TIME)
        return Values(_typed(values.view(np.float64) if type_name == "float64" else values, type_name), valid)
    return Values(_typed(cells[0][0], type_name), _ints(cells[1][0]) > 0)


def _latest(feature: Feature, cells: list[State], instants_us: Ints) -> Values:
    """The value of the newest row, where that has one and is not older than the ttl."""
    newest, found = cells
    valid = (newest[0] == found[0]) & (newest[1] == found[1]) & (newest[2] == found[2])
    valid &= _ints(found[0]) != LAST_ZERO_TIME
    if (ttl_us := feature.parameters.get("ttl_us")) is not None:
        valid &= _ints(newest[0]) >= instants_us - int(ttl_us)
    values = _ints(found[3])
    return Values(_typed(values.view(np.float64) if feature.type == "float64" else values, feature.type), valid)


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
