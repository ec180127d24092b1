"""What a worker folds: the views that read a topic, their event types, and the topics as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka.admin import AdminClient

from features.plan import Definitions, ViewPlan
from schemas.errors import ConfigError
from schemas.event import Event
from stream.batch import Place
from stream.checkpoint import Positions
from stream.fold import ViewFold
from stream.topics import Topic, describe_topics


class Streamed:
    """`plans` by view, `events` by topic, `topics` by name. Raises ConfigError where a topic does not exist."""

    def __init__(self, definitions: Definitions, events: Mapping[str, type[Event]], admin: AdminClient) -> None:
        self.plans: dict[str, ViewPlan] = {
            name: plan
            for name, plan in definitions.views.items()
            if any(source.event.topic is not None for source in plan.sources)
        }
        self._never_expire = {name for name in self.plans if definitions.read_by_event_clock(name)}
        read = {source.event.topic for plan in self.plans.values() for source in plan.sources}
        self.events = {str(s.topic): events[name] for name, s in definitions.events.items() if s.topic in read}
        self.topics: dict[str, Topic] = describe_topics(admin, self.events)
        missing = sorted(self.events.keys() - self.topics.keys())
        if missing:
            raise ConfigError(
                "topics of declared events don't exist",
                got=", ".join(missing),
                hint="run `headrace apply`, which makes them",
            )

    @property
    def places(self) -> list[Place]:
        """Every partition of every topic."""
        return [(topic.name, partition) for topic in self.topics.values() for partition in topic.partitions]

    def folds(self, names: Iterable[str] | None = None) -> dict[str, ViewFold]:
        """A fold of its own for each of these views, or for all."""
        identities = {name: topic.id for name, topic in self.topics.items()}
        return {
            name: ViewFold(
                self.plans[name], Positions(self.plans[name], identities), expires=name not in self._never_expire
            )
            for name in (self.plans if names is None else names)
        }
