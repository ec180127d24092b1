"""What a lander tells of itself, while it works and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class LandReport:
    """What a lander has landed since it started: rows by topic, rejected messages, commits of tables and their time.

    `places`: by (topic, partition) the offset below which all is committed, and the partition's end as the client last
    heard of it. `since`: by topic when (`time.monotonic`) the oldest message that isn't committed was read; 0: there is
    none. `waiting_for` says why nothing comes; empty: nothing is waited for.
    """

    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    commits: int = 0
    commit_s: float = 0.0
    places: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    waiting_for: str = ""

    @property
    def total(self) -> int:
        """Rows of all topics."""
        return sum(self.rows.values())


Progress = Callable[[LandReport], None]
