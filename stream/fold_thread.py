"""Folding beside the reading: one thing at a time, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar, cast

T = TypeVar("T")
HOLD_S = 1.0
"""A fold takes 0.1 s. Only one that takes longer makes the consumer pause, which costs it what it has prefetched."""
PAUSE_S = 0.1


class FoldThread:
    """What is begun here goes on while the caller reads. `wait(seconds)` passes the caller's time where it takes long:
    the group must go on to see this member as alive.
    """

    def __init__(self, wait: Callable[[float], object]) -> None:
        self._wait = wait
        self._thread = ThreadPoolExecutor(1, "fold")
        self._work: Future[object] | None = None

    @property
    def is_idle(self) -> bool:
        """True where nothing is under way."""
        return self._work is None or self._work.done()

    @property
    def has_ended(self) -> bool:
        """True where something was begun and is done, and `end` has not been called since."""
        return self._work is not None and self._work.done()

    def begin(self, work: Callable[[], object]) -> None:
        """Starts it, once what was begun before is done. Raises what that raised."""
        self.end()
        self._work = self._thread.submit(work)

    def end(self) -> None:
        """Returns when nothing is under way. Raises what it raised."""
        work, self._work = self._work, None
        if work is not None:
            wait([work], HOLD_S)
            while not work.done():
                self._wait(PAUSE_S)
            work.result()

    def result(self, work: Callable[[], T]) -> T:
        """Does it and returns its result."""
        self.begin(work)
        begun = self._work
        self.end()
        return cast(T, begun.result() if begun is not None else None)

    def close(self) -> None:
        """Waits for what is under way, whatever becomes of it."""
        self._thread.shutdown(wait=True)
