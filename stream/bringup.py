"""Views that are far behind are brought up beside the others: from the history first, then from Kafka. DESIGN §5.4.

A bring-up folds ordinary batches with ordinary calls, in a thread with its own kernel, connection and consumer. So it
can be stopped or die at any moment, and another one goes on from the checkpoints.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import pyarrow as pa

from features.kernel import Kernel
from schemas.errors import HeadraceError
from schemas.event import Event
from stream.apply import Applier
from stream.batch import MicroBatch, Place, ends_of
from stream.fold import ViewFold
from stream.history import History
from stream.intake import Intake
from stream.patience import Patience, Stopped
from stream.settings import StreamSettings
from stream.source import Source
from stream.store import Store
from stream.warmup import read_from

POLL_S = 0.1


class BringUp(threading.Thread):
    """Folds `places` (for each partition the views that are behind) until told to `finish` each of them.

    `positions` says how far it is. When it ends, whatever ended it, all its partitions are `finished`; `error` holds
    what it could not get over. `handed_over` is the worker's: partitions that it has placed anew since.
    """

    def __init__(
        self,
        folds: Mapping[str, ViewFold],
        places: Mapping[Place, frozenset[str]],
        events: Mapping[str, type[Event]],
        settings: StreamSettings,
        history: History | None,
        landed: Mapping[Place, int],
    ) -> None:
        super().__init__(name="bring-up", daemon=True)
        self.views = sorted({name for names in places.values() for name in names})
        self.places = dict(places)
        self.positions: dict[Place, int] = {}
        self.finished: set[Place] = set()
        self.handed_over: set[Place] = set()
        self.error: HeadraceError | None = None
        self._settings = settings
        self._history = history
        self._landed = dict(landed)
        self._stop_event = threading.Event()
        self._finishing: set[Place] = set()
        self._events = events
        self._intake = Intake(events, rejects=None, registry=settings.schema_registry)
        self.patience = Patience(self._stop_event, settings.retry_max_s, self._stop_event.wait)
        self._folds = dict(folds)

    def finish(self, place: Place) -> None:
        """Asks for the partition: it is `finished` once all that was read of it has merged."""
        self._finishing.add(place)

    def stop(self) -> None:
        """Ends it, finished or not."""
        self._stop_event.set()

    def run(self) -> None:
        store = Store.open(self._settings)
        kernel = Kernel()
        source = Source(self._settings, group=f"{self._settings.project}.stream.bring-up")
        applier = Applier(self._folds, store, kernel, self.patience)
        try:
            self._run(applier, source)
        except Stopped:
            pass
        except HeadraceError as error:
            self.error = error
        finally:
            self.finished |= self.places.keys()
            applier.close()
            source.close()
            kernel.close()
            store.close()

    def _run(self, applier: Applier, source: Source) -> None:
        views = applier.refresh()
        for place, names in self.places.items():
            for name in names:
                applier.join(name, place)
            first = min(names, key=lambda name: views[name].start(place))
            self._begin(place, views[first].start(place), views[first].newest_at_start(place))
        for batch in self._from_history():
            self._fold(applier, batch)
            if self._stop_event.is_set():
                return
        self._advance(applier, self.places.keys())
        kafka = {place: self._intake.positions[place] for place in self.places if place[1] >= 0}
        self.finished |= self.places.keys() - kafka.keys()
        # What came through the history has left its ids already.
        unknown = {place: start for place, start in kafka.items() if start > self._landed.get(place, 0)}
        back = self.patience.until_done(lambda: read_from(source, self._intake, self._settings, unknown))
        source.read(kafka | back)
        while source.reading and not self._stop_event.is_set() and not applier.lost:
            fetched = source.fetch(POLL_S)
            batch = self.patience.until_done(partial(self._intake.take, fetched))
            self.patience.waiting_for = source.waiting_for
            self._fold(applier, batch)
            done = {place for place in set(self._finishing) if place in source.reading}
            if done:
                source.rest(done)
                self._advance(applier, done)
                self.finished |= done

    def _begin(self, place: Place, start: int, newest_us: int) -> None:
        self._intake.begin(place, start, newest_us)
        self.positions[place] = start

    def _fold(self, applier: Applier, batch: MicroBatch) -> None:
        if batch.moves:
            applier.apply(batch)
        else:
            applier.settle()
        for place in batch.moves:
            self.positions[place] = self._intake.positions[place]

    def _advance(self, applier: Applier, places: Iterable[Place]) -> None:
        applier.advance({place: self._intake.standing(place) for place in places})
        applier.settle()

    def _from_history(self) -> Iterator[MicroBatch]:
        """What is landed of the partitions, from where they are on; where a topic has ids, what lies before as well."""
        if self._history is None:
            return
        topics = {topic for topic, _ in self.places}
        for topic in sorted(topics):
            ends = {p: self._landed.get((t, p), 0) for t, p in self.places if t == topic}
            starts = {partition: self._intake.positions[topic, partition] for partition in ends}
            ends = {partition: end for partition, end in ends.items() if end > starts[partition]}
            if not ends:
                continue
            if self._intake.dedupe_within_us(topic):
                starts = dict.fromkeys(ends, 0)
            for table in self._history.read(topic, {p: starts[p] for p in ends}, ends):
                for at in range(0, len(table), self._settings.batch_events_max):
                    yield self._batch(topic, table.slice(at, self._settings.batch_events_max))
            # The last good event may stand before the end: what lies between was rejected.
            yield MicroBatch({}, self._intake.skip_to({(topic, partition): end for partition, end in ends.items()}))

    def _batch(self, topic: str, table: pa.Table) -> MicroBatch:
        ends = ends_of(table["kafka_partition"].to_numpy(), table["kafka_offset"].to_numpy())
        folded, moves = self._intake.take_table(topic, table, ends)
        return MicroBatch({topic: folded} if len(folded) else {}, moves)
