"""The progress of commands that run for long: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from headrace.terminal.output import err, say

LOG_EVERY_S = 10.0
"""Often enough to see that it lives, seldom enough to read a day of it."""


@contextmanager
def ticker(what: str) -> Iterator[Callable[[str, str], None]]:
    """The yielded function takes counts and, where there is one, what is waited for; the latter is logged at once."""
    console = err()
    if not console.is_terminal:
        say(what)
        yield _Log(what)
        return
    with console.status(what) as status:

        def show(counts: str, waiting: str) -> None:
            status.update(f"{what}: {counts}{_reason(waiting)}")

        yield show


class _Log:
    """Lines with their instants, not more often than somebody reads them."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._at = time.monotonic()
        self._counts = ""
        self._waiting = ""

    def __call__(self, counts: str, waiting: str) -> None:
        due = time.monotonic() - self._at >= LOG_EVERY_S and counts != self._counts
        if due or waiting != self._waiting:
            say(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self._what}: {counts}{_reason(waiting)}")
            self._at, self._counts, self._waiting = time.monotonic(), counts, waiting


def _reason(reason: str) -> str:
    return f"; waiting: {reason}" if reason else ""
