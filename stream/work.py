"""A worker's work: one feed reads every topic once, for all views, and each micro-batch is folded into all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from features.kernel import Kernel
from schemas.errors import NotReady
from stream.alarm import RejectAlarm
from stream.apply import Applier
from stream.assignment import Assignment
from stream.batch import MicroBatch, Place
from stream.feed import Feed
from stream.fold_thread import FoldThread
from stream.history import History
from stream.intake import Intake
from stream.patience import Patience
from stream.rejects import Rejects
from stream.report import PlaceProgress, WorkerReport
from stream.settings import StreamSettings
from stream.store import Store
from stream.streamed import Streamed
from stream.topic_watch import TopicWatch

POLL_S = 0.1
LOOK_AT_OTHERS_EVERY_S = 0.5
FEW_EVENTS = 2_000
"""A batch of so few is merged before the next one is fetched: whatever comes meanwhile is fresher together than behind
it, and two threads of one interpreter are in each other's way. With more, reading and folding go on side by side."""


class Work:
    """Steps through a feed's micro-batches. Raises DeliveryError rather than skip or double an event.

    `tell` is called whenever whoever watches should hear; `wait` passes time while a service is waited for.
    """

    def __init__(
        self,
        settings: StreamSettings,
        streamed: Streamed,
        watch: TopicWatch,
        source: Feed,
        store: Store,
        history: History | None,
        stop: threading.Event,
        tell: Callable[[], None],
        wait: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._streamed = streamed
        self._source = source
        self._tell = tell
        self._rejects = Rejects(settings)
        self._intake = Intake(streamed.events, self._rejects, settings.schema_registry)
        self._alarm = RejectAlarm(settings.rejects_share_max, settings.rejects_min, time.monotonic)
        self._patience = Patience(stop, settings.retry_max_s, wait)
        self._fold_patience = Patience(stop, settings.retry_max_s, stop.wait)
        self._kernel = Kernel()
        self._applier = Applier(streamed.folds(), store, self._kernel, self._fold_patience, lambda p: p in source.given)
        self._folding = FoldThread(wait)
        self._watch = watch
        self._assignment = Assignment(
            settings,
            streamed,
            source,
            self._intake,
            self._applier,
            self._folding,
            watch,
            history,
            self._patience,
        )
        self._chores = ThreadPoolExecutor(1, "chores")
        self._looking: Future[None] | None = None
        self._ends: dict[Place, int] = {}
        self._few = True
        self._next_advance = self._next_look = self._next_look_at_others = 0.0

    def begin(self) -> None:
        """Joins the group; caught up is what is there now."""
        held = self._patience.until_done(lambda: self._watch.ranges(self._streamed.places))
        self._ends = {place: each.end for place, each in held.items()}
        self._source.subscribe(list(self._streamed.topics))

    def step(self) -> None:
        """Fetches what has come, has it folded, and does what is due."""
        self._assignment.follow()
        if self._few:
            self._folding.end()
        fetched = self._source.fetch(POLL_S)
        batch = self._patience.until_done(lambda: self._intake.take(fetched))
        self._assignment.end(fetched.ends)
        self._patience.until_done(self._rejects.flush)
        self._alarm.check(self._intake.counts["events"], self._rejects.counts.total())
        self._fold(batch)
        now = time.monotonic()
        if now >= self._next_advance:
            self._next_advance = now + self._settings.advance_every_s
            self._tell()
            self._advance()
        if now >= self._next_look:
            self._next_look = now + self._settings.topic_check_every_s
            self._look_at_topics()
            # A Redis that was emptied or went back is found also where no event comes that would be refused.
            self._folding.begin(self._applier.refresh)

    def finish(self) -> None:
        """All that was read is merged, and every shard's checkpoint says so."""
        self._advance()
        self._folding.end()

    def is_done(self) -> bool:
        """True once every partition of every topic, this worker's or another's, is folded to the end it had."""
        if not self._source.joined or not self._assignment.is_read:
            return False
        self._folding.end()
        if self._applier.lost:
            return False
        others = self._ends.keys() - self._source.given
        if not others:
            return True
        now = time.monotonic()
        if now < self._next_look_at_others:
            return False
        self._next_look_at_others = now + LOOK_AT_OTHERS_EVERY_S
        views = self._folding.result(self._applier.refresh)
        return all(
            view.start(place) >= self._ends[place] for place in others for view in views.values() if view.entries(place)
        )

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
            bringing_up=tuple(self._assignment.bringing_up()),
            caught_up=self._is_caught_up(),
            waiting_for=self._fold_patience.waiting_for or self._patience.waiting_for or self._source.waiting_for,
            places=tuple(self._place_progress(place) for place in sorted(self._assignment.placed)),
            batches=self._applier.counts["batches"],
            redis_s=self._applier.redis_s,
        )

    def close(self) -> None:
        """Ends all threads; what is under way is left to itself."""
        self._assignment.close()
        self._chores.shutdown(wait=False, cancel_futures=True)
        self._folding.close()
        self._applier.close()
        self._rejects.close()
        self._kernel.close()

    def _fold(self, batch: MicroBatch) -> None:
        if batch.moves:
            self._few = few = sum(map(len, batch.tables.values())) <= FEW_EVENTS
            self._folding.begin(lambda: self._applier.apply(batch, at_once=few))
        elif self._folding.has_ended:
            self._folding.end()
            if not self._applier.is_idle:
                self._folding.begin(self._applier.settle)

    def _advance(self) -> None:
        """Moves the shards that got no event lately: what is read again after a crash is bounded by this."""
        moves = {place: self._intake.standing(place) for place in self._source.reading}
        self._folding.begin(lambda: self._applier.advance(moves))
        self._source.commit({place: move.end for place, move in moves.items()})

    def _look_at_topics(self) -> None:
        """Asks beside the work whether the topics are still the ones that the worker began with."""
        if self._looking is not None and self._looking.done():
            self._looking.result()
            self._looking = None
        if self._looking is None:
            self._looking = self._chores.submit(self._look)

    def _look(self) -> None:
        try:
            self._watch.look()
        except NotReady as error:
            self._source.waiting_for = str(error)
        else:
            self._source.waiting_for = ""

    def _is_caught_up(self) -> bool:
        return bool(self._source.given) and self._assignment.is_read and self._applier.is_idle and self._folding.is_idle

    def _place_progress(self, place: Place) -> PlaceProgress:
        position = self._intake.positions[place]
        end = max(self._watch.ends.get(place, 0), position)
        taken_us = self._intake.taken_us.get(place)
        behind_s = 0.0 if end == position or taken_us is None else max(time.time() - taken_us / 1e6, 0.0)
        views = tuple(name for name, places in self._applier.live.items() if place in places)
        return PlaceProgress(*place, views, position, end, behind_s)
