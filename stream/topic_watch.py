"""Whether a worker's topics are still those that it began with, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka.admin import AdminClient

from schemas.errors import NotReady
from stream.batch import Place
from stream.streamed import Streamed
from stream.topics import Range, Topic, describe_topics, ranges


class TopicWatch:
    """The topics of `streamed` are as they were at the beginning. Every method raises NotReady where Kafka does not
    answer, and DeliveryError for a topic that was deleted or made anew since.

    `ends` are those of the partitions as `look` last found them.
    """

    def __init__(self, admin: AdminClient, streamed: Streamed) -> None:
        self.ends: dict[Place, int] = {}
        self._admin = admin
        self._streamed = streamed

    def look(self) -> None:
        """Asks Kafka."""
        found = self._compare()
        held = ranges(self._admin, [(topic.name, p) for topic in found.values() for p in topic.partitions])
        self.ends = {place: each.end for place, each in held.items()}

    def ranges(self, places: Iterable[Place]) -> dict[Place, Range]:
        """What Kafka holds of the partitions; of a topic that is gone it holds nothing, however long one waits."""
        try:
            return ranges(self._admin, places)
        except NotReady:
            self._compare()
            raise

    def _compare(self) -> dict[str, Topic]:
        found = describe_topics(self._admin, self._streamed.topics)
        self._streamed.refuse_others(found)
        return found
