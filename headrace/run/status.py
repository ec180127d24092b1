"""What `headrace status` knows: the services, the applied definitions, and how far workers and lander have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from features.applied import applied_version, load_applied
from features.plan import Definitions
from headrace.connections import reach_kafka, reach_redis, without_password
from headrace.settings import settings_for
from headrace.terminal.output import out, print_table, say
from schemas.errors import HeadraceError
from schemas.settings import ConnectionSettings


@dataclass(frozen=True)
class ServiceState:
    """A service: its address without any password, None where none is known, and why it doesn't answer."""

    address: str | None
    trouble: str | None


@dataclass(frozen=True)
class Place:
    """How far something has come in one partition. `age_s`: how long the oldest waiting event has waited, if known."""

    what: str
    topic: str
    partition: int
    done: int
    end: int
    lag: int
    age_s: float | None


NOT_STARTED = ServiceState(None, "not started; `headrace up` starts it")


@dataclass(frozen=True)
class Status:
    """All of it. `trouble`: why a part could not be looked at."""

    home: str
    project: str
    services: dict[str, ServiceState]
    definitions: Definitions | None
    version: int
    folded: Sequence[Place] = ()
    landed: Sequence[Place] = ()
    trouble: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """`kafka` and `redis` are addresses, null where none is known; `answers` says which of them answer."""
        return {
            "home": self.home,
            "project": self.project,
            **{name: state.address for name, state in self.services.items()},
            "answers": {name: state.trouble is None for name, state in self.services.items()},
            "applied_version": self.version,
            "views": list(self.definitions.views) if self.definitions else [],
            "services": list(self.definitions.services) if self.definitions else [],
            "folded": [asdict(place) for place in self.folded],
            "landed": [asdict(place) for place in self.landed],
            "trouble": list(self.trouble),
        }

    def print(self) -> None:
        """For people."""
        print_table(
            ["service", "address", "state"],
            [(name, s.address or "none", s.trouble or "answers") for name, s in self.services.items()],
        )
        if self.definitions is None:
            say(f"nothing is applied in project {self.project!r}; `headrace apply` does it")
            return
        views, services = ", ".join(self.definitions.views), ", ".join(self.definitions.services)
        out().print(f"\nproject {self.project}, version {self.version}\nviews: {views}\nservices: {services}\n")
        rows = [*_summed("folded into", self.folded), *_summed("landed in", self.landed)]
        if rows:
            print_table(["", "topic", "done", "of", "lag", "oldest waits"], rows, right=["done", "of", "lag"])
        for line in self.trouble:
            say(line)


def look(settings: ConnectionSettings) -> Status:
    """The state of everything; what doesn't answer is part of the answer, not an error."""
    registry = settings.registry_address()
    services = {"kafka": _kafka(settings), "redis": _redis(settings)}
    definitions = load_applied(registry, settings.project)
    trouble: list[str] = []
    folded: list[Place] = []
    landed: list[Place] = []
    if definitions is not None and services["kafka"].trouble is None:
        try:
            if services["redis"].trouble is None:
                folded = _folded(settings, definitions)
            landed = _landed(settings, definitions)
        except HeadraceError as error:
            trouble.append(str(error))
        except ModuleNotFoundError as error:
            trouble.append(f"{error.name} is not installed here: that part can't be looked at")
    return Status(
        home=str(settings.home),
        project=settings.project,
        services=services,
        definitions=definitions,
        version=applied_version(registry, settings.project),
        folded=folded,
        landed=landed,
        trouble=trouble,
    )


def _kafka(settings: ConnectionSettings) -> ServiceState:
    address = settings.kafka_bootstrap or settings.endpoints.kafka
    if not address:
        return NOT_STARTED
    try:
        reach_kafka(settings)
    except HeadraceError as error:
        return ServiceState(address, str(error))
    return ServiceState(address, None)


def _redis(settings: ConnectionSettings) -> ServiceState:
    url = settings.redis_url.get_secret_value() if settings.redis_url else settings.endpoints.redis
    if not url:
        return NOT_STARTED
    address = without_password(url)
    try:
        reach_redis(settings)
    except HeadraceError as error:
        return ServiceState(address, str(error))
    return ServiceState(address, None)


def _folded(settings: ConnectionSettings, definitions: Definitions) -> list[Place]:
    from stream.settings import StreamSettings
    from stream.status import standings

    return [
        Place(each.view, each.topic, each.partition, each.folded, each.end, each.lag, round(each.age_s, 3))
        for each in standings(settings_for(StreamSettings, settings), definitions)
    ]


def _landed(settings: ConnectionSettings, definitions: Definitions) -> list[Place]:
    from batch.history import IcebergHistory
    from batch.settings import BatchSettings
    from stream.topics import admin_client, describe_topics, ranges

    history = IcebergHistory(settings_for(BatchSettings, settings))
    admin = admin_client(settings)
    topics = describe_topics(admin, {spec.topic for spec in definitions.events.values() if spec.topic is not None})
    held = ranges(admin, [(topic.name, partition) for topic in topics.values() for partition in topic.partitions])
    offsets = {topic: history.offsets(topic) for topic in topics}
    places = []
    for (topic, partition), range_ in held.items():
        done = max(offsets[topic].get(partition, 0), range_.earliest if range_.earliest == range_.end else 0)
        lag = max(range_.end - max(done, range_.earliest), 0)
        places.append(Place(f"events.{topic}", topic, partition, done, range_.end, lag, None))
    return places


def _summed(how: str, places: Sequence[Place]) -> list[tuple[str, ...]]:
    """One line a view or table and topic: the sum of its partitions."""
    groups: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        groups.setdefault((place.what, place.topic), []).append(place)
    return [
        (
            f"{how} {what}",
            topic,
            f"{sum(place.done for place in group):,}",
            f"{sum(place.end for place in group):,}",
            f"{sum(place.lag for place in group):,}",
            _age(group),
        )
        for (what, topic), group in groups.items()
    ]


def _age(group: Sequence[Place]) -> str:
    ages = [place.age_s for place in group if place.age_s is not None and place.lag]
    return f"{max(ages):,.1f} s" if ages else ""
