"""Waiting for a service that is down: with bounded pauses, and with the reason where people look for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import NotReady

T = TypeVar("T")
FIRST_PAUSE_S = 0.05

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


class Patience:
    """Tries again until it works. `wait(seconds)` passes the time; `waiting_for` says why nothing goes on, if so."""

    def __init__(self, stop: threading.Event, pause_max_s: float, wait: Callable[[float], object]) -> None:
        self.waiting_for = ""
        self._stop = stop
        self._pause_max_s = pause_max_s
        self._wait = wait

    def until_done(self, action: Callable[[], T]) -> T:
        """The action's result; NotReady is waited out, anything else is raised. Raises Stopped once `stop` is set."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                result = action()
            except NotReady as error:
                if self._stop.is_set():
                    raise Stopped from error
                if str(error) != self.waiting_for:
                    log.warning("no progress: %s", error)
                self.waiting_for = str(error)
                self._wait(pause)
                pause = min(2 * pause, self._pause_max_s)
            else:
                if self.waiting_for:
                    log.info("going on")
                self.waiting_for = ""
                return result
