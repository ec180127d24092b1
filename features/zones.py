"""Local periods of a time zone: where each starts, and which one holds an instant. The one table of DESIGN §2.

A period is a local hour, day, week (from Monday) or month. A repeated hour is two periods, a missing midnight is the
transition, and a day that starts twice starts the first time. Periods are numbered in order; number · (about the
period's length) is near its start, so that what keeps tiles can tell roughly how old one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from features.errors import DefinitionError
from features.plan import Calendar
from schemas.row import TIME_MAX_US, TIME_MIN_US

Instants = npt.NDArray[np.int64]

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
UNITS_US = {"hour": HOUR_US, "day": DAY_US, "week": 7 * DAY_US, "month": 2_629_746 * SECOND_US}
"""About the length of a period: a month is a twelfth of the mean Gregorian year."""
MARGIN_US = 6 * DAY_US
"""How far number · length may lie from the period's start: 31-day months in a row, the zone's offset, split hours."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY_US = -3 * DAY_US
"""1969-12-29, a Monday."""


@dataclass(frozen=True)
class Periods:
    """The periods of a zone from 1700 to 2250: `starts[i]` is where number `first + i` starts, in µs UTC."""

    first: int
    starts: Instants

    def number(self, instant_us: Instants) -> Instants:
        """The period that holds each instant."""
        found: Instants = np.searchsorted(self.starts, instant_us, side="right") - 1 + self.first
        return found

    def start(self, number: Instants) -> Instants:
        """Where each period starts; beyond the table, at its ends."""
        index = np.clip(number - self.first, 0, len(self.starts) - 1)
        started: Instants = self.starts[index]
        return started


@cache
def periods(calendar: Calendar) -> Periods:
    """The periods of a unit in a zone."""
    offsets = _offsets(calendar.tz)
    if calendar.unit == "hour":
        return _hours(*offsets)
    return _calendar_periods(calendar.unit, *offsets)


def check_zone(tz: object) -> str:
    """The zone's name. Raises DefinitionError for one that the table of time zones does not have."""
    try:
        if not isinstance(tz, str):
            raise ValueError("a zone is named by text")
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DefinitionError("tz= is a time zone", got=repr(tz), hint=f'write "America/New_York" ({error})') from None
    return tz


@cache
def _offsets(tz: str) -> tuple[Instants, Instants]:
    """Instants from which an offset from UTC holds, and that offset, in µs; the first is the start of the table."""
    zone = ZoneInfo(tz)

    def offset_us(instant_us: int) -> int:
        there = (_EPOCH + timedelta(microseconds=instant_us)).astimezone(zone).utcoffset()
        return 0 if there is None else there // timedelta(microseconds=1)

    since, offsets = [TIME_MIN_US - 2 * DAY_US], [offset_us(TIME_MIN_US)]
    for day in range(TIME_MIN_US, TIME_MAX_US, DAY_US):
        if offset_us(day + DAY_US) == offsets[-1]:
            continue
        before, after = day, day + DAY_US
        while after - before > SECOND_US:
            middle = (before + after) // 2 // SECOND_US * SECOND_US
            before, after = (middle, after) if offset_us(middle) == offsets[-1] else (before, middle)
        since.append(after)
        offsets.append(offset_us(after))
    return np.array(since, np.int64), np.array(offsets, np.int64)


def _calendar_periods(unit: str, since: Instants, offsets: Instants) -> Periods:
    """Each local boundary is crossed where local time first reaches it."""
    numbers, boundaries = _boundaries(unit)
    until = np.append(since[1:], TIME_MAX_US + 2 * DAY_US)
    # The first stretch of one offset whose local time goes beyond the boundary; there, not before the stretch begins.
    reached = np.maximum.accumulate(until + offsets)
    stretch = np.searchsorted(reached, boundaries, side="right")
    inside = stretch < len(since)
    stretch = np.minimum(stretch, len(since) - 1)
    starts = np.maximum(since[stretch], boundaries - offsets[stretch])
    return Periods(int(numbers[0]), starts[inside])


def _boundaries(unit: str) -> tuple[Instants, Instants]:
    """Numbers and local starts of the periods that the table covers."""
    if unit == "month":
        numbers = np.arange((1700 - 1970) * 12, (2250 - 1970) * 12 + 1, dtype=np.int64)
        days = [(date(1970 + n // 12, n % 12 + 1, 1) - date(1970, 1, 1)).days for n in numbers.tolist()]
        return numbers, np.array(days, np.int64) * DAY_US
    length, origin = (DAY_US, 0) if unit == "day" else (7 * DAY_US, _MONDAY_US)
    numbers = np.arange((TIME_MIN_US - origin) // length - 1, (TIME_MAX_US - origin) // length + 1, dtype=np.int64)
    return numbers, numbers * length + origin


def _hours(since: Instants, offsets: Instants) -> Periods:
    """Local hours; a stretch of a new offset starts a new hour, unless local time moved forward within one."""
    until = np.append(since[1:], TIME_MAX_US + DAY_US)
    parts = []
    for number, (start, end, offset) in enumerate(zip(since.tolist(), until.tolist(), offsets.tolist(), strict=True)):
        first = -(-(start + offset) // HOUR_US) * HOUR_US - offset
        parts.append(np.arange(first, end, HOUR_US, dtype=np.int64))
        if number and first > start:
            before = start + int(offsets[number - 1])
            # The local time just before the transition, and what it became.
            goes_on = offset > offsets[number - 1] and (before - 1) // HOUR_US == (start + offset) // HOUR_US
            if not goes_on:
                parts[-1] = np.append(start, parts[-1])
    starts = np.concatenate(parts)
    at_epoch = int(np.searchsorted(starts, 0, side="right")) - 1
    return Periods(-at_epoch, starts)
