"""What a worker asks of whatever reads Kafka for it: the same questions for every runner's client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from stream.batch import Place
from stream.intake import Fetched


class Feed(Protocol):
    """Partitions that a group gives and takes, and messages of those that the worker has said where to read.

    `given` is what the group gave; `taken` what it took since the worker last emptied it. Messages of a partition come
    from where `read` last said, none left out and none of an earlier reading among them.
    """

    given: set[Place]
    taken: set[Place]
    joined: bool
    waiting_for: str

    @property
    def reading(self) -> set[Place]:
        """The partitions that are being read."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Joins the group."""

    def read(self, starts: Mapping[Place, int]) -> None:
        """Reads these partitions from these offsets on, whatever was read of them before."""

    def rest(self, places: Iterable[Place]) -> None:
        """Stops reading these partitions; they stay given."""

    def fetch(self, timeout_s: float) -> Fetched:
        """What has come; waits for the first message at most so long. Raises DeliveryError for what can't be read."""

    def wait(self, seconds: float) -> None:
        """Lets time pass; the group goes on to see this member as alive."""

    def offsets_at(self, times_ms: Mapping[Place, int]) -> dict[Place, int]:
        """The first offset of each partition not before the time. Raises NotReady where Kafka does not answer."""

    def commit(self, positions: Mapping[Place, int]) -> None:
        """Acknowledges what Redis has: for lag monitors only, nothing reads it back."""

    def close(self) -> None:
        """Leaves the group."""
