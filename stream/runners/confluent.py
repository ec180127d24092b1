"""The worker over a feed of its own process: confluent-kafka's (stream/source.py), or Faust's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from features.plan import Definitions
from schemas.event import Event
from stream.feed import Feed
from stream.history import History
from stream.monitor import open_monitor
from stream.patience import Patience, Stopped
from stream.report import Progress, WorkerReport
from stream.settings import StreamSettings
from stream.store import Store
from stream.streamed import Streamed
from stream.topic_watch import TopicWatch
from stream.topics import admin_client
from stream.work import Work

REPORT_EVERY_S = 1.0

log = logging.getLogger(__name__)


class ConfluentRunner:
    """One worker of the group `{project}.stream`.

    `run` returns when `stop` is set, or with `until_caught_up` once every partition of every topic, this worker's or
    another's, is folded to the end it had. Raises DeliveryError rather than skip or double an event. A Kafka or Redis
    that is down, also at the start, is waited for.
    """

    def __init__(
        self,
        definitions: Definitions,
        events: Mapping[str, type[Event]],
        settings: StreamSettings,
        *,
        history: History | None,
        until_caught_up: bool,
        stop: threading.Event,
        progress: Progress,
        open_feed: Callable[[StreamSettings], Feed],
    ) -> None:
        self._definitions = definitions
        self._events = events
        self._settings = settings
        self._history = history
        self._until_caught_up = until_caught_up
        self._stop = stop
        self._progress = progress
        self._store = Store.open(settings)
        self._source = open_feed(settings)
        self._starting = Patience(stop, settings.retry_max_s, self._wait)
        self._work: Work | None = None
        self._next_report = 0.0
        self._monitor = open_monitor(settings)

    def run(self) -> WorkerReport:
        """Works; see the class."""
        caught_up = False
        try:
            self._work = work = self._begin()
            while not self._stop.is_set() and not (caught_up := self._until_caught_up and work.is_done()):
                work.step()
            work.finish()
        except Stopped:
            log.warning("stopped while waiting: %s", self.report().waiting_for)
        finally:
            self._close()
        # By now the partitions are given back, and of none there is nothing to say.
        return self.report()._replace(caught_up=caught_up)

    def report(self) -> WorkerReport:
        """Where the worker stands."""
        if self._work is None:
            return WorkerReport(waiting_for=self._starting.waiting_for)
        return self._work.report()

    def _begin(self) -> Work:
        """Once Kafka and Redis are there."""
        admin = admin_client(self._settings)
        streamed = self._starting.until_done(lambda: Streamed(self._definitions, self._events, admin))
        self._starting.until_done(self._store.check_policy)
        work = Work(
            self._settings,
            streamed,
            TopicWatch(admin, streamed),
            self._source,
            self._store,
            self._history,
            self._stop,
            self._tell,
            self._wait,
        )
        self._work = work
        work.begin()
        return work

    def _tell(self) -> None:
        self._next_report = time.monotonic() + REPORT_EVERY_S
        report = self.report()
        if self._monitor is not None:
            self._monitor.take(report)
        self._progress(report)

    def _wait(self, seconds: float) -> None:
        """Lets time pass; the group goes on to see this member as alive, and whoever watches hears why it waits."""
        if self._work is None:
            self._stop.wait(seconds)
        else:
            self._source.wait(seconds)
        if time.monotonic() >= self._next_report:
            self._tell()

    def _close(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._work is not None:
            self._work.close()
        self._source.close()
        self._store.close()
