"""Kafka's topics: made as headrace wants them, and told apart by their ids when one is made anew under its old name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its package names them without exporting them
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from features.plan import Definitions
from schemas.errors import ConfigError, NotReady
from schemas.settings import ConnectionSettings
from stream.clients import client_config

PARTITIONS = 4
"""Of a new topic: four workers can share it, and an entity's events stay together under any number of them."""
BROKERS_CHOICE = -1
TIMEOUT_S = 15.0
TIMESTAMPS = "message.timestamp.type"


class Topic(NamedTuple):
    """What the broker says of a topic. `id` has 16 bytes: another one under the same name is another log."""

    name: str
    id: bytes
    partitions: tuple[int, ...]


class Range(NamedTuple):
    """The offsets that a partition holds: from `earliest` (inside) to `end` (outside)."""

    earliest: int
    end: int


def admin_client(settings: ConnectionSettings) -> AdminClient:
    """An admin client of the settings' Kafka."""
    return AdminClient(client_config(settings))


def wanted_topics(settings: ConnectionSettings, definitions: Definitions) -> list[str]:
    """The topics that the definitions need: events, served vectors of services that log, and the rejects."""
    events = [spec.topic for spec in definitions.events.values() if spec.topic is not None]
    served = [f"served.{service.name}" for service in definitions.services.values() if service.log > 0]
    return sorted({*events, *served, settings.rejects_topic})


def ensure_topics(
    settings: ConnectionSettings, definitions: Definitions, report: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Makes the topics that are missing (LogAppendTime, 4 partitions) and returns their names.

    An existing topic with producers' timestamps is reported: dedupe, max_future and known_at="arrival" then trust what
    the producers claim. Raises NotReady where Kafka does not answer, ConfigError where it refuses.
    """
    admin = admin_client(settings)
    names = wanted_topics(settings, definitions)
    existing = describe_topics(admin, names)
    missing = [name for name in names if name not in existing]
    if missing:
        _create(admin, missing)
        report(f"made topics: {', '.join(missing)}")
    events = {spec.topic for spec in definitions.events.values()}
    for name in _with_producers_time(admin, [name for name in existing if name in events]):
        report(
            f"topic {name} carries its producers' timestamps, not the broker's: dedupe_within, max_future and "
            f'known_at="arrival" are only as good as their clocks (set {TIMESTAMPS}=LogAppendTime)'
        )
    return missing


def describe_topics(admin: AdminClient, names: Iterable[str]) -> dict[str, Topic]:
    """The topics that exist. Raises NotReady where Kafka does not answer."""
    wanted = list(names)
    found: dict[str, Topic] = {}
    if not wanted:
        return found
    for name, future in admin.describe_topics(TopicCollection(wanted), request_timeout=TIMEOUT_S).items():
        try:
            answer = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise unreachable(error) from error
        most, least = answer.topic_id.get_most_significant_bits(), answer.topic_id.get_least_significant_bits()
        identity = most.to_bytes(8, "big", signed=True) + least.to_bytes(8, "big", signed=True)
        found[name] = Topic(name, identity, tuple(sorted(partition.id for partition in answer.partitions)))
    return found


def ranges(admin: AdminClient, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Range]:
    """What each partition holds now. Raises NotReady where Kafka does not answer."""
    wanted = [TopicPartition(topic, partition) for topic, partition in partitions]
    earliest, latest = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
    first = dict(_offsets(admin, dict.fromkeys(wanted, earliest), IsolationLevel.READ_UNCOMMITTED))
    ends = _offsets(admin, dict.fromkeys(wanted, latest), IsolationLevel.READ_UNCOMMITTED)
    return {place: Range(first[place], end) for place, end in ends}


def stable_ends(admin: AdminClient, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Up to where events are decided: the end, or the first one of a transaction that is still open.

    Raises NotReady where Kafka does not answer.
    """
    wanted = {TopicPartition(*place): OffsetSpec.latest() for place in partitions}  # type: ignore[no-untyped-call]
    return dict(_offsets(admin, wanted, IsolationLevel.READ_COMMITTED))


def offsets_at(admin: AdminClient, times_ms: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """The first offset of each partition whose broker's timestamp is not before the time; the end if there is none.

    Raises NotReady where Kafka does not answer.
    """
    specs = {TopicPartition(*place): OffsetSpec.for_timestamp(at) for place, at in times_ms.items()}
    found = dict(_offsets(admin, specs, IsolationLevel.READ_UNCOMMITTED))
    ends = stable_ends(admin, [place for place, offset in found.items() if offset < 0])
    return found | ends


def unreachable(error: KafkaException) -> NotReady:
    """What a failed request to the broker means to a caller."""
    return NotReady("Kafka does not answer", got=error.args[0].str(), hint="see `headrace status` and the broker's log")


def _offsets(
    admin: AdminClient, specs: Mapping[TopicPartition, OffsetSpec], isolation: IsolationLevel
) -> Iterator[tuple[tuple[str, int], int]]:
    if not specs:
        return
    futures = admin.list_offsets(dict(specs), isolation_level=isolation, request_timeout=TIMEOUT_S)
    for partition, future in futures.items():
        try:
            yield (partition.topic, partition.partition), future.result().offset
        except KafkaException as error:
            raise unreachable(error) from error


def _create(admin: AdminClient, names: list[str]) -> None:
    topics = [
        NewTopic(
            name, num_partitions=PARTITIONS, replication_factor=BROKERS_CHOICE, config={TIMESTAMPS: "LogAppendTime"}
        )
        for name in names
    ]
    for name, future in admin.create_topics(topics, request_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            reason = error.args[0]
            # Somebody else's `apply` was faster.
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ConfigError(
                    "Kafka refuses to make a topic",
                    where=name,
                    got=reason.str(),
                    hint="make it, or allow it to be made",
                ) from error


def _with_producers_time(admin: AdminClient, names: list[str]) -> list[str]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: list[str] = []
    if not resources:
        return found
    for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
        try:
            entries = future.result()
        except KafkaException as error:
            raise unreachable(error) from error
        if entries[TIMESTAMPS].value != "LogAppendTime":
            found.append(resource.name)
    return sorted(found)
