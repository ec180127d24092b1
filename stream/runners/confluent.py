"""The worker: one feed reads every topic once, for all views. confluent-kafka's feed is stream/source.py."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from features.kernel import Kernel
from features.plan import Definitions
from schemas.errors import NotReady
from schemas.event import Event
from stream.alarm import RejectAlarm
from stream.apply import Applier
from stream.batch import Place
from stream.bringup import BringUp
from stream.checkpoint import Positions
from stream.feed import Feed
from stream.history import IMPORTED, History
from stream.intake import Intake
from stream.monitor import open_monitor
from stream.patience import Patience, Stopped
from stream.placement import newest_below, place_partition
from stream.rejects import Rejects
from stream.report import BringUpProgress, PlaceProgress, Progress, WorkerReport
from stream.settings import StreamSettings
from stream.store import Store
from stream.streamed import Streamed
from stream.topics import Range, admin_client, describe_topics, ranges
from stream.warmup import read_from

POLL_S = 0.1
LOOK_AT_OTHERS_EVERY_S = 0.5
REPORT_EVERY_S = 1.0
HOLD_S = 1.0
"""A fold takes 0.1 s. Only one that takes longer makes the consumer pause, which costs it what it has prefetched."""
AT_ONCE_EVENTS_MAX = 2_000
"""So few are sent by the thread that folded them: 0.1 ms less for each."""

log = logging.getLogger(__name__)


class ConfluentRunner:
    """One worker of the group `{project}.stream`.

    `run` returns when `stop` is set, or with `until_caught_up` once every partition of every topic, this worker's or
    another's, is folded to the end it had. Raises DeliveryError rather than skip or double an event.
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
        self._settings = settings
        self._history = history
        self._until_caught_up = until_caught_up
        self._stop = stop
        self._progress = progress
        self._admin = admin_client(settings)
        self._streamed = Streamed(definitions, events, self._admin)
        self._topics = self._streamed.topics
        self._rejects = Rejects(settings)
        self._intake = Intake(self._streamed.events, self._rejects, settings.schema_registry)
        self._source = open_feed(settings)
        self._patience = Patience(stop, settings.retry_max_s, self._wait)
        self._fold_patience = Patience(stop, settings.retry_max_s, stop.wait)
        self._kernel = Kernel()
        self._store = Store.open(settings)
        self._applier = Applier(
            self._streamed.folds(), self._store, self._kernel, self._fold_patience, lambda p: p in self._source.given
        )
        self._folder = ThreadPoolExecutor(1, "fold")
        self._folding: Future[object] | None = None
        self._placed: set[Place] = set()
        self._held: set[Place] = set()
        self._ended: set[Place] = set()
        self._bring_ups: list[BringUp] = []
        self._chores = ThreadPoolExecutor(1, "chores")
        self._topic_check: Future[None] | None = None
        self._ends: dict[Place, int] = {}
        self._held_ends: dict[Place, int] = {}
        self._monitor = open_monitor(settings)
        self._alarm = RejectAlarm(settings.rejects_share_max, time.monotonic)
        self._next_advance = self._next_check = self._next_look = self._next_report = 0.0

    def run(self) -> WorkerReport:
        """Works; see the class."""
        try:
            self._patience.until_done(self._store.check_policy)
            held = self._fold_patience.until_done(lambda: self._ranges(self._streamed.places))
            self._ends = {place: each.end for place, each in held.items()}
            self._source.subscribe(list(self._topics))
            while not self._stop.is_set() and not self._is_done():
                self._step()
            self._advance()
            self._drain()
        except Stopped:
            log.warning("stopped while waiting: %s", self.report().waiting_for)
        finally:
            self._close()
        return self.report()

    def report(self) -> WorkerReport:
        """Where the worker stands."""
        counts = self._applier.folds
        return WorkerReport(
            events=self._intake.counts["events"],
            copies=self._intake.counts["copies"],
            rejected=dict(self._rejects.counts),
            counted={name: fold.counts["counted"] for name, fold in counts.items()},
            nulls={
                name: sum(n for what, n in f.counts.items() if what.startswith("nulls_")) for name, f in counts.items()
            },
            too_late=self._applier.counts["too_late"],
            calls=self._applier.counts["calls"],
            refused=self._applier.counts["refused"],
            partitions=len(self._source.given),
            bringing_up=tuple(self._bringing_up()),
            caught_up=self._is_caught_up(),
            waiting_for=self._fold_patience.waiting_for or self._patience.waiting_for or self._source.waiting_for,
            places=tuple(self._place_progress(place) for place in sorted(self._placed)),
            batches=self._applier.counts["batches"],
            redis_s=self._applier.redis_s,
        )

    def _tell(self) -> None:
        report = self.report()
        if self._monitor is not None:
            self._monitor.take(report)
        self._progress(report)

    def _place_progress(self, place: Place) -> PlaceProgress:
        position = self._intake.positions[place]
        end = max(self._held_ends.get(place, 0), position)
        taken_us = self._intake.taken_us.get(place)
        behind_s = 0.0 if end == position or taken_us is None else max(time.time() - taken_us / 1e6, 0.0)
        views = tuple(name for name, places in self._applier.live.items() if place in places)
        return PlaceProgress(*place, views, position, end, behind_s)

    def _step(self) -> None:
        self._take_away()
        self._place((self._source.given - self._placed) | (self._applier.lost & self._source.given))
        self._watch_bring_ups()
        fetched = self._source.fetch(POLL_S)
        batch = self._patience.until_done(lambda: self._intake.take(fetched))
        self._ended |= fetched.ends.keys() & self._source.given
        self._patience.until_done(self._rejects.flush)
        self._alarm.check(self._intake.counts["events"], self._rejects.counts.total())
        if batch.moves:
            at_once = sum(map(len, batch.tables.values())) <= AT_ONCE_EVENTS_MAX
            self._fold(lambda: self._applier.apply(batch, at_once=at_once))
        elif self._folding is not None and self._folding.done():
            self._drain()
            if not self._applier.is_idle:
                self._fold(self._applier.settle)
        now = time.monotonic()
        if now >= self._next_advance:
            self._next_advance = now + self._settings.advance_every_s
            self._tell()
            self._next_report = now + REPORT_EVERY_S
            self._advance()
        if now >= self._next_check:
            self._next_check = now + self._settings.topic_check_every_s
            self._check_topics()
            # A Redis that was emptied or went back is found also where no event comes that would be refused.
            self._fold(self._applier.refresh)

    def _wait(self, seconds: float) -> None:
        """Lets time pass; the group goes on to see this member as alive, and whoever watches hears why it waits."""
        self._source.wait(seconds)
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_EVERY_S
            self._tell()

    def _fold(self, work: Callable[[], object]) -> None:
        """Has the applier do something while the next messages are fetched and decoded; one thing at a time."""
        self._drain()
        self._folding = self._folder.submit(work)

    def _drain(self) -> None:
        """Returns when the applier has nothing to do; the group goes on to see this member as alive."""
        folding, self._folding = self._folding, None
        if folding is not None:
            wait([folding], HOLD_S)
            while not folding.done():
                self._wait(POLL_S)
            folding.result()

    def _refresh(self) -> dict[str, Positions]:
        found: dict[str, Positions] = {}
        self._fold(lambda: found.update(self._applier.refresh()))
        self._drain()
        return found

    def _take_away(self) -> None:
        """What the group has taken is no more ours to read or fold."""
        if not self._source.taken:
            return
        self._drain()
        taken, self._source.taken = self._source.taken, set()
        for place in taken & self._placed:
            self._applier.leave(place)
            self._intake.end(place)
        self._placed -= taken
        self._held -= taken
        self._ended -= taken
        for each in self._bring_ups:
            if taken & each.places.keys():
                each.stop()

    def _place(self, places: set[Place]) -> None:
        """Decides from the checkpoints where these partitions are read from, and for whom."""
        if not places:
            return
        self._drain()
        self._source.rest(places)
        for place in places:
            self._applier.leave(place)
        landed = self._patience.until_done(lambda: self._streamed.landed(self._history, {topic for topic, _ in places}))
        held = self._patience.until_done(lambda: self._ranges(places))
        views = self._refresh()
        starts: dict[Place, int] = {}
        behind: dict[Place, frozenset[str]] = {}
        for place in sorted(places & self._source.given):
            readers = {name: view for name, view in views.items() if view.entries(place)}
            placement = place_partition(
                place,
                readers,
                held[place],
                landed.get(place, 0),
                batch_events_max=self._settings.batch_events_max,
                from_earliest=self._settings.from_earliest,
            )
            for name in placement.live:
                self._applier.join(name, place)
            self._intake.begin(place, placement.start, newest_below(place, placement, readers))
            if placement.live:
                starts[place] = placement.start
            rising = {n for each in self._bring_ups if place not in each.finished for n in each.places.get(place, ())}
            if placement.behind.keys() - rising:
                behind[place] = frozenset(placement.behind.keys() - rising)
            self._placed.add(place)
            self._ended.discard(place)
            behind |= self._imported(place, views, landed)
        self._held -= places
        back = self._patience.until_done(lambda: read_from(self._source, self._intake, self._settings, starts))
        self._source.read({place: start for place, start in back.items() if place in self._source.given})
        if behind:
            self._bring_up(behind, landed)

    def _imported(
        self, place: Place, views: Mapping[str, Positions], landed: Mapping[Place, int]
    ) -> dict[Place, frozenset[str]]:
        """Events from before Kafka, where some are not folded yet: whoever has partition 0 folds them."""
        imported = (place[0], IMPORTED)
        if place[1] != 0 or imported not in landed:
            return {}
        if any(imported in each.places and imported not in each.finished for each in self._bring_ups):
            return {}
        behind = [
            name for name, view in views.items() if view.entries(imported) and view.start(imported) < landed[imported]
        ]
        return {imported: frozenset(behind)} if behind else {}

    def _bring_up(self, behind: Mapping[Place, frozenset[str]], landed: Mapping[Place, int]) -> None:
        names = {name for views in behind.values() for name in views}
        folds = self._streamed.folds(names)
        job = BringUp(folds, behind, self._streamed.events, self._settings, self._history, landed)
        log.info("bringing up %s", ", ".join(job.views))
        self._bring_ups.append(job)
        job.start()

    def _watch_bring_ups(self) -> None:
        """A view that is nearly there: its partition is held until it is, and then placed anew."""
        for job in list(self._bring_ups):
            if job.error is not None:
                raise job.error
            mine = {place for place in job.places if place in self._source.given}
            for place in mine - self._held - job.finished:
                target = self._intake.positions[place]
                if job.positions.get(place, -1) >= target - self._settings.batch_events_max:
                    self._source.rest([place])
                    self._held.add(place)
                    job.finish(place)
            if not job.is_alive():
                self._bring_ups.remove(job)
            up = (job.finished & mine) - job.handed_over
            job.handed_over |= up
            self._place({place for place in up if place[1] != IMPORTED})

    def _advance(self) -> None:
        """Moves the shards that got no event lately: what is read again after a crash is bounded by this."""
        moves = {place: self._intake.standing(place) for place in self._source.reading}
        self._fold(lambda: self._applier.advance(moves))
        self._source.commit({place: move.end for place, move in moves.items()})

    def _check_topics(self) -> None:
        """Whether the topics are still the ones that the worker began with; asked beside the work."""
        if self._topic_check is not None and self._topic_check.done():
            self._topic_check.result()
            self._topic_check = None
        if self._topic_check is None:
            self._topic_check = self._chores.submit(self._compare_topics)

    def _compare_topics(self) -> None:
        try:
            found = describe_topics(self._admin, self._topics)
            held = ranges(self._admin, [(t.name, p) for t in found.values() for p in t.partitions])
        except NotReady as error:
            self._source.waiting_for = str(error)
            return
        self._source.waiting_for = ""
        self._held_ends = {place: each.end for place, each in held.items()}
        self._streamed.refuse_others(found)

    def _ranges(self, places: Iterable[Place]) -> dict[Place, Range]:
        """What Kafka holds of the partitions; of a topic that is gone it holds nothing, however long one waits."""
        try:
            return ranges(self._admin, places)
        except NotReady:
            self._streamed.refuse_others(describe_topics(self._admin, self._topics))
            raise

    def _is_caught_up(self) -> bool:
        if self._bring_ups or not self._source.given or not self._ended >= self._source.given:
            return False
        return self._applier.is_idle and (self._folding is None or self._folding.done())

    def _is_done(self) -> bool:
        if not self._until_caught_up or not self._source.joined or self._bring_ups or self._held:
            return False
        mine = self._source.given
        if self._placed != mine or not self._ended >= mine:
            return False
        self._drain()
        if self._applier.lost:
            return False
        others = self._ends.keys() - mine
        if not others:
            return True
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_AT_OTHERS_EVERY_S
        views = self._refresh()
        return all(
            view.start(place) >= self._ends[place] for place in others for view in views.values() if view.entries(place)
        )

    def _bringing_up(self) -> Iterable[BringUpProgress]:
        for job in self._bring_ups:
            for place, names in job.places.items():
                position = job.positions.get(place, 0)
                target = self._intake.positions.get(place, position)
                yield BringUpProgress(tuple(sorted(names)), *place, position, target)

    def _close(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        for job in self._bring_ups:
            job.stop()
        for job in self._bring_ups:
            job.join()
        self._chores.shutdown(wait=False, cancel_futures=True)
        self._folder.shutdown(wait=True)
        self._applier.close()
        self._source.close()
        self._rejects.close()
        self._store.close()
        self._kernel.close()
