"""Windows, and the only place with window arithmetic. DESIGN §2.

Window("6h")                        floor(q − 6h, hop) ≤ t < q
Window("7d", ending="24h ago")      floor(q − 24h − 7d, hop) ≤ t < floor(q − 24h, hop)
Calendar("day", tz="Asia/Kolkata")  the local day that holds q, up to q; with ago=1 the whole day before it
None                                t < q: the lifetime
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from features import plan
from features.errors import DefinitionError
from features.plan import LIFETIME, Resolution, WindowPlan
from features.zones import MARGIN_US, UNITS_US, check_zone, periods
from schemas.duration import format_duration, parse_duration
from schemas.row import RESOLUTION_SHIFT, TILE_BIAS, TIME_MIN_US

Instants = npt.NDArray[np.int64]

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
YEAR_US = 366 * DAY_US
WINDOW_MAX_US = 100 * YEAR_US
TILES_MAX = 2_000
"""Tiles an entity of one view: at 50 bytes a tile, 100 KB a row, which a read still gets in a millisecond."""


@dataclass(frozen=True)
class Window:
    """A sliding window: its length, the hop by which its tail moves, and how long ago it ends ("24h ago").

    Durations are written as "90s", "5m", "1h30m", "7d", "2w". Raises DefinitionError where one can't be read, is not
    positive, or is longer than a century.
    """

    size: str
    hop: str | None = None
    ending: str | None = None

    def __post_init__(self) -> None:
        if self.size_us > WINDOW_MAX_US or self.hop_us > WINDOW_MAX_US or self.ending_us > WINDOW_MAX_US:
            raise DefinitionError(
                "a window, its hop and its ending are at most a century",
                got=repr(self),
                hint="over=None is the lifetime: all events before the instant",
            )

    @property
    def size_us(self) -> int:
        return _duration_us("a window", self.size)

    @property
    def hop_us(self) -> int:
        return default_hop_us(self.size_us) if self.hop is None else _duration_us("a hop", self.hop)

    @property
    def ending_us(self) -> int:
        if self.ending is None:
            return 0
        if not isinstance(self.ending, str) or not self.ending.endswith(" ago"):
            raise DefinitionError("a window ends some time ago", got=repr(self.ending), hint='write ending="24h ago"')
        return _duration_us("an ending", self.ending.removesuffix(" ago"))

    def __str__(self) -> str:
        hop = "" if self.hop is None else f" by {self.hop}"
        return f"{self.size}{hop}" + ("" if self.ending is None else f" ending {self.ending}")

    def shown(self) -> str:
        """As it is written after over=."""
        return repr(str(self))

    def plan(self, resolution: int) -> WindowPlan:
        return WindowPlan(resolution, self.size_us, self.ending_us)

    def resolution(self, max_future_us: int) -> Resolution:
        """The tiles that it needs."""
        return Resolution(self.hop_us, span_us(self.size_us, self.ending_us, self.hop_us, max_future_us))

    def tiles(self) -> int:
        """How many of them an entity keeps."""
        return -(-(self.size_us + self.ending_us) // self.hop_us) + 1

    def lagged(self, lag_us: int) -> Lagged:
        """The same window, ending that much earlier."""
        return Lagged(self.size_us, self.hop_us, self.ending_us + lag_us, lag_us)


@dataclass(frozen=True)
class Lagged:
    """The window of a Lag: that of the feature it lags, ending `lag_us` earlier; size 0 is the lifetime."""

    size_us: int
    hop_us: int
    ending_us: int
    lag_us: int

    def __str__(self) -> str:
        size = "lifetime" if not self.size_us else format_duration(self.size_us)
        return f"{size} by {format_duration(self.hop_us)} ending {format_duration(self.ending_us)} ago"

    def shown(self) -> str:
        return repr(str(self))

    def plan(self, resolution: int) -> WindowPlan:
        return WindowPlan(resolution, self.size_us, self.ending_us, self.lag_us)

    def resolution(self, max_future_us: int) -> Resolution:
        span = span_us(self.size_us, self.ending_us, self.hop_us, max_future_us)
        return Resolution(self.hop_us, span, keeps_past=not self.size_us)

    def tiles(self) -> int:
        return -(-(self.size_us + self.ending_us) // self.hop_us) + 1


@dataclass(frozen=True)
class Calendar:
    """The local hour, day, week (from Monday) or month that holds the instant, up to it; `ago=n`: the n-th before.

    Raises DefinitionError for another unit, an unknown time zone, or an `ago` that is negative.
    """

    unit: str
    tz: str = "UTC"
    ago: int = 0

    def __post_init__(self) -> None:
        if self.unit not in UNITS_US:
            raise DefinitionError(
                f"a calendar's unit is one of {', '.join(UNITS_US)}",
                got=repr(self.unit),
                hint='write Calendar("day", tz="America/New_York")',
            )
        check_zone(self.tz)
        if isinstance(self.ago, bool) or not isinstance(self.ago, int) or self.ago < 0:
            raise DefinitionError("ago= is a number of periods", got=repr(self.ago), hint="ago=1 is the one before")

    @property
    def _calendar(self) -> plan.Calendar:
        return plan.Calendar(self.unit, self.tz)

    @property
    def hop_us(self) -> int:
        return UNITS_US[self.unit]

    def __str__(self) -> str:
        ago = f", ago={self.ago}" if self.ago else ""
        return f"Calendar({self.unit!r}, tz={self.tz!r}{ago})"

    def shown(self) -> str:
        return str(self)

    def plan(self, resolution: int) -> WindowPlan:
        return WindowPlan(resolution, 0, calendar=self._calendar, ago=self.ago)

    def resolution(self, max_future_us: int) -> Resolution:
        span = (self.ago + 2) * self.hop_us + MARGIN_US + max_future_us
        return Resolution(self.hop_us, span, self._calendar)

    def tiles(self) -> int:
        return self.ago + 2


AnyWindow = Window | Lagged | Calendar


def as_window(over: Window | Calendar | str | None) -> AnyWindow | None:
    """What `over=` says, as a window; None is the lifetime. Raises DefinitionError for anything else."""
    if over is None or isinstance(over, Window | Calendar):
        return over
    if isinstance(over, str):
        return Window(over)
    raise DefinitionError(
        "over= takes a duration or a Window, or a Calendar", got=repr(over), hint='write over="6h" or None'
    )


def default_hop_us(size_us: int) -> int:
    """5 minutes below 12 hours, 1 hour below 12 days, 1 day from there on."""
    if size_us < 12 * HOUR_US:
        return 5 * MINUTE_US
    return HOUR_US if size_us < 12 * DAY_US else DAY_US


def bounds_us(window: WindowPlan, hop_us: int, instant_us: Instants) -> tuple[Instants, Instants]:
    """Start (inside) and end (outside) of the window read at each instant, in µs.

    A lifetime starts before any event. A fixed end (ending > 0) is a multiple of the hop; the head is the instant.
    """
    if window.calendar is not None:
        table = periods(window.calendar)
        number = table.number(instant_us) - window.ago
        return table.start(number), np.minimum(instant_us, table.start(number + 1))
    end = instant_us if not window.ending_us else _floor(instant_us - window.ending_us, hop_us)
    if not window.size_us:
        return np.full_like(instant_us, TIME_MIN_US), end
    return _floor(instant_us - window.ending_us - window.size_us, hop_us), end


def tile_key_range(
    window: WindowPlan, resolutions: tuple[Resolution, ...], instant_us: Instants
) -> tuple[Instants, Instants]:
    """First (inside) and last (outside) tile key that the window covers at each instant.

    The head's tile counts whole: the online store holds no event at or after the instant that it answers for.
    """
    hop_us = resolutions[window.resolution].hop_us
    base = (window.resolution << RESOLUTION_SHIFT) + TILE_BIAS
    if hop_us == LIFETIME:
        first = np.full_like(instant_us, base)
        return first, first + 1
    if window.calendar is not None:
        first = base + periods(window.calendar).number(instant_us) - window.ago
        return first, first + 1
    start, end = bounds_us(window, hop_us, instant_us)
    if not window.size_us:
        # From the one tile that holds all time before the others: its number is the least there is.
        return np.full_like(instant_us, base - TILE_BIAS), base + (end - 1) // hop_us + 1
    return base + start // hop_us, base + (end - 1) // hop_us + 1


def span_us(size_us: int, ending_us: int, hop_us: int, max_future_us: int) -> int:
    """How far behind a row's newest event a tile can lie and still be read: window + ending + hop + max_future."""
    return size_us + ending_us + hop_us + max_future_us


def check_tiles(windows: Sequence[AnyWindow]) -> None:
    """Raises DefinitionError, naming the hop that would do, where an entity would keep more than TILES_MAX tiles."""
    tiles: dict[Resolution, int] = {}
    for window in windows:
        kind = replace(window.resolution(0), span_us=0)
        tiles[kind] = max(tiles.get(kind, 0), window.tiles())
    total = sum(tiles.values())
    if total <= TILES_MAX:
        return
    worst = max(windows, key=lambda window: window.tiles())
    others = min(total - worst.tiles(), TILES_MAX // 2)
    hint = (
        "ask for fewer periods ago, or for longer ones"
        if isinstance(worst, Calendar)
        else f'give a hop of at least "{_hop_that_does(worst.size_us + worst.ending_us, TILES_MAX - others)}"'
    )
    raise DefinitionError(
        f"a view keeps at most {TILES_MAX:,} tiles an entity",
        got=f"{total:,} ({worst} alone takes {worst.tiles():,})",
        hint=hint,
    )


def _hop_that_does(span: int, tiles_max: int) -> str:
    steps = [("s", 1_000_000), ("m", MINUTE_US), ("h", HOUR_US), ("d", DAY_US)]
    for unit, unit_us in steps:
        for n in (1, 2, 5, 10, 15, 30):
            if -(-span // (n * unit_us)) + 1 <= tiles_max:
                return f"{n}{unit}"
    return f"{-(-span // (tiles_max - 1) // DAY_US)}d"


def _floor(instant_us: Instants, hop_us: int) -> Instants:
    floored: Instants = instant_us // hop_us * hop_us
    return floored


def _duration_us(what: str, text: str) -> int:
    try:
        value = parse_duration(text)
    except (ValueError, TypeError) as error:
        raise DefinitionError(
            f"{what} is a duration", got=repr(text), hint=f'write "90s", "5m", "6h" or "7d" ({error})'
        ) from None
    if value <= 0:
        raise DefinitionError(f"{what} is longer than nothing", got=repr(text), hint='write "5m" or more')
    return value
