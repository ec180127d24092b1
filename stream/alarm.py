"""Too many rejects: a broken producer, whose topic must not drain into the rejects unseen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from schemas.errors import DataError

WINDOW_S = 60.0


class _Sample(NamedTuple):
    at: float
    events: int
    rejected: int


class RejectAlarm:
    """Watches the share of rejected messages over the last minute of work. `clock` counts seconds.

    Fewer than `rejects_min` in the minute are no share of anything: one bad message of three stops nobody.
    """

    def __init__(self, share_max: float, rejects_min: int, clock: Callable[[], float]) -> None:
        self._share_max = share_max
        self._rejects_min = rejects_min
        self._clock = clock
        self._samples: deque[_Sample] = deque([_Sample(clock(), 0, 0)])

    def check(self, events: int, rejected: int) -> None:
        """Takes the counts since the worker began. Raises DataError past `share_max`."""
        now = _Sample(self._clock(), events, rejected)
        if now.at - self._samples[-1].at >= 1 or len(self._samples) == 1:
            self._samples.append(now)
        while len(self._samples) > 1 and now.at - self._samples[1].at > WINDOW_S:
            self._samples.popleft()
        first = self._samples[0]
        bad, all_ = rejected - first.rejected, rejected + events - first.rejected - first.events
        if bad >= self._rejects_min and bad > self._share_max * all_:
            raise DataError(
                "the worker stops: too many messages are rejected",
                got=f"{bad:,} of {all_:,} within a minute, {bad / all_:.0%}; {self._share_max:.0%} are accepted",
                hint="see `headrace rejects`, mend the producer or the schema; or raise HEADRACE_REJECTS_SHARE_MAX",
            )
