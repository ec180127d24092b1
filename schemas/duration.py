"""Durations as people write them: "90s", "5m", "1h30m", "7d", "2w"."""

from __future__ import annotations

import re

UNITS_US = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_WHOLE = re.compile(r"(?:\d+(?:ms|s|m|h|d|w))+")
DURATION_MAX_US = 1 << 62


def parse_duration(text: str) -> int:
    """The duration in µs. Raises TypeError where `text` is no text, ValueError where it can't be read."""
    if not isinstance(text, str):
        raise TypeError(f"a duration is text, not {type(text).__name__}")
    compact = text.replace(" ", "")
    if not _WHOLE.fullmatch(compact):
        raise ValueError(f"{text!r} is not a number and a unit of {', '.join(UNITS_US)}")
    total = sum(int(number) * UNITS_US[unit] for number, unit in _PART.findall(compact))
    if total > DURATION_MAX_US:
        raise ValueError(f"{text!r} is longer than {DURATION_MAX_US} µs")
    return total


def format_duration(duration_us: int) -> str:
    """The duration in the largest units that are exact: "1h30m"; below a millisecond in µs, for people only."""
    if duration_us == 0:
        return "0s"
    sign, rest = ("-", -duration_us) if duration_us < 0 else ("", duration_us)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, UNITS_US[unit])
        if count:
            parts.append(f"{count}{unit}")
    if rest:
        parts.append(f"{rest}µs")
    return sign + "".join(parts)
