"""What a worker tells of itself: to the caller when it ends, to `progress` about every second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias


class BringUpProgress(NamedTuple):
    """A view and partition on the way up: the next offset to fold, and the one at which the worker takes over."""

    views: tuple[str, ...]
    topic: str
    partition: int
    position: int
    target: int


class PlaceProgress(NamedTuple):
    """A partition that this worker folds, for the views that are live on it.

    `position`: the next offset; `end`: the partition's, a few seconds old at most. `behind_s`: how long ago the broker
    took the newest event that was read, while there are more behind it; 0 at the end.
    """

    topic: str
    partition: int
    views: tuple[str, ...]
    position: int
    end: int
    behind_s: float


class WorkerReport(NamedTuple):
    """Counts since the worker began. `waiting_for` says why there is no progress; empty: there is.

    `events` were good and no copies; `rejected` by reason; `counted` and `nulls` by view: events that have a key and
    pass its `where`, and inputs that an expression left null. `too_late`: tiles that no window can read any more.
    `calls` and `redis_s`: script calls and the time that they took, replies included.
    """

    events: int = 0
    copies: int = 0
    rejected: Mapping[str, int] = {}
    counted: Mapping[str, int] = {}
    nulls: Mapping[str, int] = {}
    too_late: int = 0
    calls: int = 0
    refused: int = 0
    partitions: int = 0
    bringing_up: tuple[BringUpProgress, ...] = ()
    caught_up: bool = False
    waiting_for: str = ""
    places: tuple[PlaceProgress, ...] = ()
    batches: int = 0
    redis_s: float = 0.0

    @property
    def rejected_total(self) -> int:
        """Rejections of all reasons."""
        return sum(self.rejected.values())

    @property
    def is_ready(self) -> bool:
        """True while every view is fed and nothing is waited for."""
        return not self.waiting_for and not self.bringing_up and self.partitions > 0


Progress: TypeAlias = Callable[[WorkerReport], None]
