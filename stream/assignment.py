"""The partitions that the group gave to a worker: from where each is read, for whom, and what is brought up beside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from stream.apply import Applier
from stream.batch import Place
from stream.bringup import BringUp
from stream.checkpoint import Positions
from stream.feed import Feed
from stream.fold_thread import FoldThread
from stream.history import IMPORTED, History
from stream.intake import Intake
from stream.patience import Patience
from stream.placement import newest_below, place_partition
from stream.report import BringUpProgress
from stream.settings import StreamSettings
from stream.streamed import Streamed
from stream.topic_watch import TopicWatch
from stream.warmup import read_from

log = logging.getLogger(__name__)


class Assignment:
    """Follows the group: what it gave is placed by the checkpoints, what it took is let go. DESIGN §5.

    A view that is far behind on a partition is brought up beside the others. When it is nearly there, the partition is
    held until it is, and then placed anew.
    """

    def __init__(
        self,
        settings: StreamSettings,
        streamed: Streamed,
        source: Feed,
        intake: Intake,
        applier: Applier,
        folding: FoldThread,
        watch: TopicWatch,
        history: History | None,
        patience: Patience,
    ) -> None:
        self.placed: set[Place] = set()
        self._ended: set[Place] = set()
        self._held: set[Place] = set()
        self._bring_ups: list[BringUp] = []
        self._settings = settings
        self._streamed = streamed
        self._source = source
        self._intake = intake
        self._applier = applier
        self._folding = folding
        self._watch = watch
        self._history = history
        self._patience = patience

    def follow(self) -> None:
        """Brings all of it up to date; to be called before each fetch. Raises what a bring-up could not get over."""
        self._take_away()
        self._place((self._source.given - self.placed) | (self._applier.lost & self._source.given))
        self._watch_bring_ups()

    def end(self, places: Iterable[Place]) -> None:
        """These partitions were read to their end."""
        self._ended |= set(places) & self._source.given

    @property
    def is_read(self) -> bool:
        """True where all that the group gave was read to its end, for every view."""
        return not self._bring_ups and not self._held and self.placed == self._source.given <= self._ended

    def bringing_up(self) -> Iterable[BringUpProgress]:
        """How far each bring-up is."""
        for job in self._bring_ups:
            for place, names in job.places.items():
                position = job.positions.get(place, 0)
                target = self._intake.positions.get(place, position)
                yield BringUpProgress(tuple(sorted(names)), *place, position, target)

    def close(self) -> None:
        """Ends the bring-ups; another worker goes on from their checkpoints."""
        for job in self._bring_ups:
            job.stop()
        for job in self._bring_ups:
            job.join()

    def _take_away(self) -> None:
        """What the group has taken is no more ours to read or fold."""
        if not self._source.taken:
            return
        self._folding.end()
        taken, self._source.taken = self._source.taken, set()
        for place in taken & self.placed:
            self._applier.leave(place)
            self._intake.end(place)
        self.placed -= taken
        self._held -= taken
        self._ended -= taken
        for each in self._bring_ups:
            if taken & each.places.keys():
                each.stop()

    def _place(self, places: set[Place]) -> None:
        """Decides from the checkpoints where these partitions are read from, and for whom."""
        if not places:
            return
        self._folding.end()
        self._source.rest(places)
        for place in places:
            self._applier.leave(place)
        topics = {topic for topic, _ in places}
        landed = self._patience.until_done(lambda: self._streamed.landed(self._history, topics))
        held = self._patience.until_done(lambda: self._watch.ranges(places))
        views = self._folding.result(self._applier.refresh)
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
            self.placed.add(place)
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
