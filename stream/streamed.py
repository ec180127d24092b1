"""What a worker folds: the views that read a topic, their event types, and the topics as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka.admin import AdminClient

from features.plan import Definitions, ViewPlan
from schemas.errors import ConfigError, DeliveryError
from schemas.event import Event
from stream.batch import Place
from stream.checkpoint import Positions
from stream.fold import ViewFold
from stream.history import History
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

    def landed(self, history: History | None, topics: Iterable[str] | None = None) -> dict[Place, int]:
        """Up to where the history holds the partitions of these topics, or of all. Raises NotReady."""
        if history is None:
            return {}
        wanted = self.topics if topics is None else topics
        return {(topic, p): end for topic in wanted for p, end in history.offsets(topic).items()}

    def refuse_others(self, found: Mapping[str, Topic]) -> None:
        """Raises DeliveryError where the topics that are `found` now are no more those that the worker began with."""
        for name, topic in self.topics.items():
            if name not in found or found[name].id != topic.id:
                raise DeliveryError(
                    "the topic was deleted or made anew while the worker was reading it",
                    where=f"topic {name}",
                    got=found[name].id.hex() if name in found else "no such topic",
                    hint="run `headrace apply`, then `headrace rebuild` for its views",
                )

    def folds(self, names: Iterable[str] | None = None) -> dict[str, ViewFold]:
        """A fold of its own for each of these views, or for all."""
        identities = {name: topic.id for name, topic in self.topics.items()}
        return {
            name: ViewFold(
                self.plans[name], Positions(self.plans[name], identities), expires=name not in self._never_expire
            )
            for name in (self.plans if names is None else names)
        }
