"""The worker on Spark: a Structured Streaming query hands Kafka's partitions to tasks that fold them. DESIGN §5.

The checkpoints in Redis are the truth here too. Every start of the query begins where they stand, never at Spark's own
checkpoint; a task that is run twice, or beside another one, is refused by the merge script like any other zombie.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import orjson
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from features.kernel import Kernel
from features.plan import Definitions
from schemas.errors import DeliveryError, HeadraceError, NotReady
from schemas.event import Event
from schemas.row import NO_EVENT
from schemas.spark import session
from stream.alarm import RejectAlarm
from stream.apply import Applier
from stream.batch import Move, Place
from stream.bringup import BringUp
from stream.history import IMPORTED, History
from stream.monitor import open_monitor
from stream.patience import Patience, Stopped
from stream.placement import newest_below, place_partition
from stream.report import BringUpProgress, PlaceProgress, Progress, WorkerReport
from stream.runners.spark_options import kafka_options
from stream.runners.spark_task import FOLDED_SCHEMA, WAITED, WENT_BACK, FoldTask
from stream.settings import StreamSettings
from stream.store import Store
from stream.streamed import Streamed
from stream.topics import admin_client, describe_topics, ranges

POLL_S = 0.2
LOOK_EVERY_S = 1.0
"""How often the checkpoints are read where no batch does it: Redis may have gone back meanwhile."""
BATCHES_OF_A_TASK = 8
"""A micro-batch costs Spark half a second, whatever is in it: a task folds so many of ours in one."""

log = logging.getLogger(__name__)

Load = Callable[[], Mapping[str, type[Event]]]
"""The event types by name, loaded anew: tasks run in other processes, which must be able to import it."""


class SparkRunner:
    """One query over all partitions. `run` returns when `stop` is set, or with `until_caught_up` when all is folded."""

    def __init__(
        self,
        definitions: Definitions,
        events: Mapping[str, type[Event]],
        load: Load,
        settings: StreamSettings,
        *,
        history: History | None,
        until_caught_up: bool,
        stop: threading.Event,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._history = history
        self._until_caught_up = until_caught_up
        self._stop = stop
        self._progress = progress
        self._admin = admin_client(settings)
        self._streamed = Streamed(definitions, events, self._admin)
        self._task = FoldTask(definitions, load, settings)
        self._patience = Patience(stop, settings.retry_max_s, stop.wait)
        self._kernel = Kernel()
        self._store = Store.open(settings)
        self._applier = Applier(self._streamed.folds(), self._store, self._kernel, self._patience)
        self._using = threading.Lock()
        self._standing: dict[Place, tuple[int, int]] = {}
        """Of each partition the offset below which all is folded, and the newest good event below it."""
        self._taken_us: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._alarm = RejectAlarm(settings.rejects_share_max, settings.rejects_min, time.monotonic)
        self._bringing_up: BringUp | None = None
        self._monitor = open_monitor(settings)
        self._caught_up = False
        self._failure: HeadraceError | None = None
        """What went wrong in Spark's thread, where Spark would wrap it."""
        self._went_back = False

    def run(self) -> WorkerReport:
        """Works; see the class."""
        try:
            self._patience.until_done(self._store.check_policy)
            while not self._stop.is_set() and not self._caught_up:
                self._place()
                if not self._stop.is_set():
                    self._query()
        except Stopped:
            log.warning("stopped while waiting: %s", self._patience.waiting_for)
        finally:
            if self._monitor is not None:
                self._monitor.close()
            self._applier.close()
            self._store.close()
            self._kernel.close()
        return self.report()

    def report(self) -> WorkerReport:
        """Where the worker stands."""
        names = self._streamed.plans
        applier = self._applier
        return WorkerReport(
            events=self._counts["events"],
            rejected=dict(self._rejected),
            counted={name: self._counts[f"counted {name}"] for name in names},
            nulls={name: self._counts[f"nulls {name}"] for name in names},
            too_late=self._counts["too_late"] + applier.counts["too_late"],
            calls=self._counts["calls"] + applier.counts["calls"],
            refused=self._counts["refused"] + applier.counts["refused"],
            partitions=len(self._standing),
            bringing_up=tuple(self._rising()),
            caught_up=self._caught_up or self._is_at_the_ends(),
            waiting_for=self._patience.waiting_for,
            places=tuple(self._place_progress(place) for place in sorted(self._standing)),
            batches=self._counts["batches"] + applier.counts["batches"],
            redis_s=self._counts["redis_us"] / 1e6 + applier.redis_s,
        )

    def _tell(self) -> None:
        report = self.report()
        if self._monitor is not None:
            self._monitor.take(report)
        self._progress(report)

    def _place_progress(self, place: Place) -> PlaceProgress:
        position = self._standing[place][0]
        end = max(self._ends.get(place, 0), position)
        taken_us = self._taken_us.get(place)
        behind_s = 0.0 if end == position or taken_us is None else max(time.time() - taken_us / 1e6, 0.0)
        views = tuple(name for name, places in self._applier.live.items() if place in places)
        return PlaceProgress(*place, views, position, end, behind_s)

    def _is_at_the_ends(self) -> bool:
        if self._bringing_up is not None or not self._ends:
            return False
        return all(self._standing.get(place, (0, 0))[0] >= end for place, end in self._ends.items())

    def _rising(self) -> Iterator[BringUpProgress]:
        job = self._bringing_up
        for place, names in job.places.items() if job is not None else ():
            position = job.positions.get(place, 0) if job is not None else 0
            yield BringUpProgress(tuple(sorted(names)), *place, position, self._standing.get(place, (position, 0))[0])

    def _place(self) -> None:
        """Brings up what is far behind, and then joins every view to every partition where it stands."""
        places = self._streamed.places
        while not self._stop.is_set():
            landed = self._patience.until_done(lambda: self._streamed.landed(self._history))
            held = self._patience.until_done(lambda: ranges(self._admin, places))
            for place in places:
                self._applier.leave(place)
            views = self._applier.refresh()
            behind: dict[Place, frozenset[str]] = {}
            self._standing = {}
            for place in places:
                readers = {name: view for name, view in views.items() if view.entries(place)}
                placement = place_partition(
                    place,
                    readers,
                    held[place],
                    landed.get(place, 0),
                    batch_events_max=self._settings.batch_events_max,
                    from_earliest=self._settings.from_earliest,
                )
                if placement.behind:
                    behind[place] = frozenset(placement.behind)
                self._standing[place] = (placement.start, newest_below(place, placement, readers))
            for topic, end in {p[0]: e for p, e in landed.items() if p[1] == IMPORTED}.items():
                imported = (topic, IMPORTED)
                late = {n for n, view in views.items() if view.entries(imported) and view.start(imported) < end}
                if late:
                    behind[imported] = frozenset(late)
            if not behind:
                for place in places:
                    for name, view in views.items():
                        if view.entries(place):
                            self._applier.join(name, place)
                return
            self._bring_up(behind, landed)

    def _bring_up(self, behind: Mapping[Place, frozenset[str]], landed: Mapping[Place, int]) -> None:
        """Brings the views to where the others stand; the query starts behind it."""
        names = {name for views in behind.values() for name in views}
        targets = {place: self._standing.get(place, (landed.get(place, 0), 0))[0] for place in behind}
        log.info("bringing up %s", ", ".join(sorted(names)))
        folds = self._streamed.folds(names)
        job = self._bringing_up = BringUp(folds, behind, self._streamed.events, self._settings, self._history, landed)
        job.start()
        asked: set[Place] = set()
        while job.is_alive():
            for place, target in targets.items():
                if place not in asked and job.positions.get(place, -1) >= target:
                    job.finish(place)
                    asked.add(place)
            if job.finished >= behind.keys() or self._stop.is_set():
                job.stop()
            job.join(POLL_S)
            self._tell()
        self._bringing_up = None
        if job.error is not None:
            raise job.error

    def _query(self) -> None:
        """One query, until it ends, the worker is stopped, or Redis has gone back and all must be placed anew."""
        self._went_back = False
        self._advance({})
        with tempfile.TemporaryDirectory(prefix="headrace-spark-") as folder:
            query = self._start(folder)
            try:
                self._watch(query)
            finally:
                query.stop()
            error = query.exception()
            if error is None and not self._went_back:
                self._advance(_ends_of(query))
        if self._failure is not None:
            raise self._failure
        if error is not None and not self._went_back:
            if WENT_BACK not in str(error) and WAITED not in str(error):
                raise DeliveryError(
                    "Spark's query ended", got=str(error).splitlines()[0][:500], hint="see Spark's log; start it again"
                )
            log.warning("the query ended, and all partitions are placed anew: %s", str(error).splitlines()[0][:500])
            return
        self._caught_up = self._until_caught_up and not self._went_back and not self._stop.is_set()

    def _start(self, folder: str) -> StreamingQuery:
        spark = session(self._settings)
        offsets: dict[str, dict[str, int]] = {}
        for (topic, partition), (start, _) in self._standing.items():
            offsets.setdefault(topic, {})[str(partition)] = start
        frame = (
            spark.readStream.format("kafka")
            .options(**kafka_options(self._settings))
            .option("subscribe", ",".join(offsets))
            .option("startingOffsets", orjson.dumps(offsets).decode())
            .option("maxOffsetsPerTrigger", self._events_max())
            # What Kafka no longer has is refused, never skipped.
            .option("failOnDataLoss", "true")
            .option("includeHeaders", "true")
            .load()
        )
        writer = frame.writeStream.foreachBatch(self._fold).option("checkpointLocation", folder)
        if self._until_caught_up:
            return writer.trigger(availableNow=True).start()
        return writer.trigger(processingTime="0 seconds").start()

    def _events_max(self) -> int:
        return self._settings.batch_events_max * BATCHES_OF_A_TASK * max(len(self._standing), 1)

    def _watch(self, query: StreamingQuery) -> None:
        next_look = next_check = 0.0
        while query.isActive and not self._stop.is_set() and not self._went_back:
            self._stop.wait(POLL_S)
            now = time.monotonic()
            if now >= next_look:
                next_look = now + LOOK_EVERY_S
                self._look(query)
                self._tell()
            if now >= next_check:
                next_check = now + self._settings.topic_check_every_s
                self._check_topics()

    def _look(self, query: StreamingQuery) -> None:
        """Whether Redis has gone back, and where the partitions end."""
        with self._using:
            self._applier.refresh()
            self._went_back = bool(self._applier.lost)
        try:
            self._ends = {place: held.end for place, held in ranges(self._admin, self._streamed.places).items()}
        except NotReady as error:
            log.warning("no progress: %s", error)
        read = _ends_of(query)
        # Markers of transactions stand at offsets that no task sees.
        if any(end > self._standing.get(place, (0, 0))[0] for place, (end, _) in read.items()):
            self._advance(read)

    def _fold(self, frame: DataFrame, number: int) -> None:
        """A micro-batch, in Spark's own thread: the tasks fold, then the other shards are moved as well."""
        standing = dict(self._standing)
        rows = frame.mapInArrow(self._task.at(standing), FOLDED_SCHEMA).collect()
        ends: dict[Place, tuple[int, int]] = {}
        for row in rows:
            place = (row["topic"], row["partition"])
            end, newest = ends.get(place, (0, NO_EVENT))
            ends[place] = (max(end, row["end"]), max(newest, row["newest_us"]))
            self._taken_us[place] = max(self._taken_us.get(place, 0), row["taken_us"])
            self._counts.update(orjson.loads(row["counts"]))
            self._rejected.update(orjson.loads(row["rejected"]))
        self._advance(ends)
        try:
            self._alarm.check(self._counts["events"], self._rejected.total())
        except HeadraceError as error:
            self._failure = error
            raise

    def _advance(self, ends: Mapping[Place, tuple[int, int]]) -> None:
        """Moves every shard to where its partitions are folded."""
        with self._using:
            for place, (end, newest) in ends.items():
                if place not in self._standing:
                    # A partition that was added since. One that is known stays let go, once Redis has lost some of it.
                    for name, fold in self._applier.folds.items():
                        if fold.positions.entries(place):
                            self._applier.join(name, place)
                start, before = self._standing.get(place, (0, NO_EVENT))
                self._standing[place] = (max(end, start), max(newest, before))
            self._applier.refresh()
            self._applier.advance({p: Move(end, end, newest, newest) for p, (end, newest) in self._standing.items()})
            self._applier.settle()
            self._went_back = self._went_back or bool(self._applier.lost)

    def _check_topics(self) -> None:
        try:
            found = describe_topics(self._admin, self._streamed.topics)
        except NotReady:
            return
        self._streamed.refuse_others(found)


def _ends_of(query: StreamingQuery) -> dict[Place, tuple[int, int]]:
    """Up to where the query has read each partition, markers of transactions included."""
    progress = query.lastProgress
    if progress is None or query.exception() is not None:
        return {}
    ends: dict[Place, tuple[int, int]] = {}
    for source in orjson.loads(progress.json)["sources"]:
        for topic, partitions in (source["endOffset"] or {}).items():
            ends |= {(topic, int(partition)): (int(end), NO_EVENT) for partition, end in partitions.items()}
    return ends
