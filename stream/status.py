"""How far the workers have come: lag and age of the checkpoints, as Redis and Kafka say, whoever works or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from features.plan import Definitions
from stream.batch import Place
from stream.checkpoint import Positions
from stream.probe import timestamps_ms
from stream.settings import StreamSettings
from stream.store import Store
from stream.topics import Range, Topic, admin_client, describe_topics, ranges


class Standing(NamedTuple):
    """One view and partition: the offset that all its shards have folded, the partition's end, and what lies between.

    `age_s`: how long the oldest event that is not folded has waited since the broker took it; 0 where there is none.
    """

    view: str
    topic: str
    partition: int
    folded: int
    end: int
    age_s: float

    @property
    def lag(self) -> int:
        """Messages that are not folded yet."""
        return max(self.end - self.folded, 0)


def standings(settings: StreamSettings, definitions: Definitions) -> list[Standing]:
    """Every view and partition. A topic that does not exist yet is left out.

    Raises NotReady where Kafka or Redis does not answer, DeliveryError for a topic that was made anew.
    """
    admin = admin_client(settings)
    topics = describe_topics(admin, {s.topic for s in definitions.events.values() if s.topic is not None})
    places = [(topic.name, partition) for topic in topics.values() for partition in topic.partitions]
    held = ranges(admin, places)
    folded = list(_folded(settings, definitions, topics, places))
    waiting: dict[Place, int] = {}
    for _, place, offset in folded:
        if offset < held[place].end:
            waiting[place] = min(waiting.get(place, offset), offset)
    since = timestamps_ms(settings, waiting)
    now_ms = time.time() * 1_000
    return [_standing(view, place, offset, held[place], since.get(place), now_ms) for view, place, offset in folded]


def _standing(view: str, place: Place, offset: int, held: Range, since_ms: int | None, now_ms: float) -> Standing:
    age_s = 0.0 if since_ms is None or offset >= held.end else max(now_ms - since_ms, 0.0) / 1_000
    return Standing(view, *place, offset, held.end, age_s)


def _folded(
    settings: StreamSettings, definitions: Definitions, topics: dict[str, Topic], places: list[Place]
) -> Iterator[tuple[str, Place, int]]:
    identities = {name: topic.id for name, topic in topics.items()}
    store = Store.open(settings)
    try:
        for name, plan in definitions.views.items():
            positions = Positions(plan, identities)
            positions.adopt(store.checkpoints(plan))
            for place in places:
                if positions.entries(place):
                    yield name, place, positions.start(place)
    finally:
        store.close()
