"""A reader beside the stream: vectors of flights about to leave, while workers fold the events before them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import httpx
import pandas as pd

from headrace.demo.over_http import TIMEOUT_S, ask, entities_of
from schemas.errors import HeadraceError, NotReady

VECTORS_A_REQUEST = 50
EVERY_S = 0.1
"""Some ten thousand vectors over the stream: spread over the year, and proved within seconds."""
LOOK_BACK_FLIGHTS = 10_000
"""Flights are taken from this many behind the newest produced: their planes and routes have a history by then."""


class Reader:
    """Reads in a thread of its own until it is stopped; what went wrong is raised by `stop`."""

    def __init__(self, url: str, flights: pd.DataFrame, share_produced: Callable[[], float]) -> None:
        self.vectors = 0
        self.not_ready = 0
        self._url = url
        self._flights = flights.sort_values("scheduled_at", kind="stable", ignore_index=True)
        self._share_produced = share_produced
        self._random = random.Random(2013)
        self._failure: HeadraceError | httpx.HTTPError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """Ends the reading: how many vectors were answered. Raises what made it end before."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.vectors

    def _run(self) -> None:
        try:
            with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
                while not self._stop.wait(EVERY_S):
                    self._read(client)
        except (HeadraceError, httpx.HTTPError) as error:
            self._failure = error

    def _read(self, client: httpx.Client) -> None:
        at = int(self._share_produced() * (len(self._flights) - 1))
        chosen = [self._random.randint(max(0, at - LOOK_BACK_FLIGHTS), at) for _ in range(VECTORS_A_REQUEST)]
        try:
            ask(client, entities_of(self._flights.iloc[chosen].astype(object).where(lambda cell: cell.notna(), None)))
        except NotReady:
            # A shard without a checkpoint has no answer: so it is until the worker has begun.
            self.not_ready += 1
        else:
            self.vectors += VECTORS_A_REQUEST
