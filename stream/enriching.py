"""Folding with events being enriched beside it: what `headrace stream` does where Enriched sources are declared."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from features.plan import Definitions
from schemas.event import Event
from stream.deployments import enriched_events
from stream.enrich import Enricher, Lookup
from stream.report import WorkerReport
from stream.settings import StreamSettings

Work = Callable[[threading.Event], WorkerReport]


def work_enriching(
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    work: Work,
    open_lookup: Callable[[], Lookup],
    *,
    until_caught_up: bool,
    stop: threading.Event,
) -> WorkerReport:
    """`work` (the folding, until `stop` is set or it has caught up), and a writer for each enriched topic beside it.

    With `until_caught_up` they take turns until nothing is left: what is enriched is folded, and may be looked up in
    its turn. `stop` is set where a writer fails; its error is raised when the folding has ended.
    """

    def enricher(spec_name: str) -> Enricher:
        return Enricher(
            definitions,
            definitions.events[spec_name],
            events,
            settings,
            open_lookup(),
            until_caught_up=until_caught_up,
            stop=stop,
        )

    names = [spec.name for spec in enriched_events(definitions)]
    if not names:
        return work(stop)
    if until_caught_up:
        report = work(stop)
        while not stop.is_set() and _all([enricher(name) for name in names], stop):
            report = _together(report, work(stop))
        return report
    writers = _Writers([enricher(name) for name in names], stop)
    try:
        return work(stop)
    finally:
        stop.set()
        writers.join()


class _Writers:
    """Enrichers, each on a thread."""

    def __init__(self, enrichers: list[Enricher], stop: threading.Event) -> None:
        self._stop = stop
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(each,), name="enrich") for each in enrichers]
        for thread in self._threads:
            thread.start()

    def _run(self, enricher: Enricher) -> None:
        try:
            enricher.run()
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def join(self) -> None:
        """Waits for them; raises the first error."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


def _all(enrichers: list[Enricher], stop: threading.Event) -> int:
    """Runs them until they have caught up; how many events they have written."""
    _Writers(enrichers, stop).join()
    return sum(each.written for each in enrichers)


def _together(one: WorkerReport, other: WorkerReport) -> WorkerReport:
    """A report of both runs: sums, and where the second one stands."""
    return other._replace(
        events=one.events + other.events,
        copies=one.copies + other.copies,
        rejected=Counter(one.rejected) + Counter(other.rejected),
        counted=Counter(one.counted) + Counter(other.counted),
        nulls=Counter(one.nulls) + Counter(other.nulls),
        too_late=one.too_late + other.too_late,
        calls=one.calls + other.calls,
        refused=one.refused + other.refused,
        batches=one.batches + other.batches,
        redis_s=one.redis_s + other.redis_s,
    )
