"""Instants as nearly all producers write them, read all at once: epoch numbers, and ISO 8601 text of one shape.

    2023-11-14T22:13:20    then, if at all, . and up to nine digits, then, if at all, Z

What is read here pydantic reads the same; everything else is left to it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
INSTANT = pa.timestamp("us")
EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
SECONDS_MAX = 20_000_000_000
"""An epoch number beyond this, either way, is in milliseconds, not seconds: pydantic's rule."""
EPOCH_MS_MIN = -62_135_596_800_000
EPOCH_MS_MAX = 253_402_300_799_999
"""Years 1 to 9999."""
SHAPE = "dddd-dd-ddTdd:dd:dd"
FRACTION_DIGITS_MAX = 9
MICROSECOND_DIGITS = 6
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAYS_BEFORE_MONTH = np.array([0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])


def instants_of(values: list[Any]) -> pa.Array | None:
    """The instants, if all are numbers, or all texts of one shape; None where only pydantic can say what they are."""
    types = set(map(type, values))
    if types == {int}:
        return _of_epochs(values)
    return _of_texts(values) if types == {str} else None


def _of_epochs(values: list[int]) -> pa.Array | None:
    if min(values) < EPOCH_MS_MIN or max(values) > EPOCH_MS_MAX:
        return None
    epochs = np.array(values, np.int64)
    return _array(epochs * np.where(np.abs(epochs) > SECONDS_MAX, 1_000, 1_000_000))


def _of_texts(values: list[str]) -> pa.Array | None:
    first = values[0]
    digits = len(first) - len(SHAPE) - first.endswith("Z") - 1
    if digits == 0 or digits > FRACTION_DIGITS_MAX:
        return None
    fraction = f".{'d' * digits}" if digits > 0 else ""
    shape = f"{SHAPE}{fraction}{'Z' if first.endswith('Z') else ''}"
    joined = "".join(values)
    # As long as all together, and digits and marks where they belong in each: so each has this length.
    if len(joined) != len(values) * len(shape) or not joined.isascii():
        return None
    text = np.frombuffer(joined.encode(), np.uint8).reshape(len(values), len(shape))
    marks = [(at, ord(mark)) for at, mark in enumerate(shape) if mark not in "dT"]
    numbers = text - np.uint8(ord("0"))
    if not all((text[:, at] == mark).all() for at, mark in marks) or not np.isin(text[:, 10], (84, 32)).all():
        return None
    if (numbers[:, [at for at, mark in enumerate(shape) if mark == "d"]] > 9).any():
        return None
    return _of_parts(numbers, digits)


def _of_parts(numbers: npt.NDArray[np.uint8], digits: int) -> pa.Array | None:
    year, month, day = _number(numbers, 0, 4), _number(numbers, 5, 7), _number(numbers, 8, 10)
    hour, minute, second = _number(numbers, 11, 13), _number(numbers, 14, 16), _number(numbers, 17, 19)
    # Finer than a microsecond is cut off.
    kept = min(max(digits, 0), MICROSECOND_DIGITS)
    microsecond = _number(numbers, 20, 20 + kept) * 10 ** (MICROSECOND_DIGITS - kept)
    if (month < 1).any() or (month > 12).any() or (year < 1).any() or (day < 1).any():
        return None
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    if (day > _MONTH_DAYS[month] + (leap & (month == 2))).any():
        return None
    if (hour > 23).any() or (minute > 59).any() or (second > 59).any():
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719_162
    days += _DAYS_BEFORE_MONTH[month] + (leap & (month > 2)) + day - 1
    return _array((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + microsecond)


def _number(numbers: npt.NDArray[np.uint8], start: int, end: int) -> Ints:
    total = np.zeros(len(numbers), np.int64)
    for at in range(start, end):
        total = total * 10 + numbers[:, at]
    return total


def _array(microseconds: Ints) -> pa.Array:
    return pa.array(microseconds).cast(INSTANT)
