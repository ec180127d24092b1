"""From where on events are enriched as they come: decided once, when `apply` makes an enriched topic. DESIGN §3."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from features.plan import Definitions
from schemas.enriched import Deployment, deployments_topic
from schemas.errors import ConfigError, DataError, NotReady
from schemas.event import EventSpec
from schemas.settings import ConnectionSettings
from stream.topics import Range, Topic, admin_client, describe_topics, ranges, unreachable

TIMEOUT_S = 30.0
PAUSE_S = 0.1

log = logging.getLogger(__name__)


def enriched_events(definitions: Definitions) -> list[EventSpec]:
    """The event types that a worker writes."""
    return [spec for spec in definitions.events.values() if spec.enriched is not None]


def deploy(settings: ConnectionSettings, definitions: Definitions) -> dict[str, Deployment]:
    """The deployment of each enriched topic: what was decided before, or now, at the ends of what there is.

    An enriched topic has as many partitions as its events' own. Raises NotReady where Kafka does not answer.
    """
    specs = enriched_events(definitions)
    if not specs:
        return {}
    admin = admin_client(settings)
    match_partitions(admin, definitions)
    _make_topic(admin, deployments_topic(settings.project))
    known = read_deployments(settings)
    new = {str(spec.topic): _as_of_now(admin, definitions, spec) for spec in specs if str(spec.topic) not in known}
    if new:
        _write(settings, new)
    return {str(spec.topic): (known | new)[str(spec.topic)] for spec in specs}


def match_partitions(admin: AdminClient, definitions: Definitions) -> None:
    """Adds partitions to enriched topics whose events' topic has more: an event keeps its partition."""
    for spec in enriched_events(definitions):
        source = source_topic(definitions, spec)
        topics = describe_topics(admin, [source, str(spec.topic)])
        missing = [name for name in (source, str(spec.topic)) if name not in topics]
        if missing:
            raise ConfigError(
                "topics of declared events don't exist", got=", ".join(missing), hint="run `headrace apply`"
            )
        count = len(topics[source].partitions)
        if len(topics[str(spec.topic)].partitions) < count:
            _add_partitions(admin, topics[str(spec.topic)], count)


def source_topic(definitions: Definitions, spec: EventSpec) -> str:
    """The topic of the events that are enriched."""
    assert spec.enriched is not None, f"{spec.name} is no enriched event"
    return str(definitions.events[spec.enriched.event].topic)


def read_deployments(settings: ConnectionSettings) -> dict[str, Deployment]:
    """What was decided, by enriched topic. Raises NotReady where Kafka does not answer in time."""
    topic = deployments_topic(settings.project)
    if topic not in describe_topics(admin_client(settings), [topic]):
        return {}
    consumer = Consumer(
        {
            **settings.kafka_config(),
            "group.id": topic,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "logger": log,
        }
    )
    found: dict[str, Deployment] = {}
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            for message in consumer.consume(1_000, 0.5):
                error = message.error()
                if error is None:
                    found[(message.key() or b"").decode()] = _parsed(topic, message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
    finally:
        consumer.close()
    raise NotReady("the deployments of enriched topics can't be read", where=topic, got="no answer in time")


def _as_of_now(admin: AdminClient, definitions: Definitions, spec: EventSpec) -> Deployment:
    assert spec.enriched is not None, f"{spec.name} is no enriched event"
    source = source_topic(definitions, spec)
    view = definitions.views[spec.enriched.view]
    read = sorted({str(each.event.topic) for each in view.sources if each.event.topic is not None})
    ends: dict[str, dict[int, int]] = {}
    topics = describe_topics(admin, {source, *read})
    places = [(topic.name, partition) for topic in topics.values() for partition in topic.partitions]
    for (topic, partition), held in _ranges(admin, places).items():
        ends.setdefault(topic, {})[partition] = held.end
    known: Mapping[str, Mapping[int, int]] = {topic: ends[topic] for topic in read if topic in ends}
    return Deployment(source, ends.get(source, {}), known)


def _ranges(admin: AdminClient, places: list[tuple[str, int]]) -> dict[tuple[str, int], Range]:
    """What the partitions hold; those of a topic that was just made have no leader for a moment."""
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return ranges(admin, places)
        except NotReady:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)


def _write(settings: ConnectionSettings, deployments: Mapping[str, Deployment]) -> None:
    topic = deployments_topic(settings.project)
    failed: list[KafkaError] = []
    producer = Producer({**settings.kafka_config(), "acks": "all", "enable.idempotence": True, "logger": log})
    for name, deployment in deployments.items():
        producer.produce(
            topic,
            deployment.to_json(),
            name.encode(),
            on_delivery=lambda error, _: None if error is None else failed.append(error),
        )
    left = producer.flush(TIMEOUT_S)
    if left or failed:
        reason = failed[0].str() if failed else f"no answer within {TIMEOUT_S:.0f} s"
        raise NotReady("the deployment of an enriched topic can't be written", where=topic, got=reason)


def _parsed(topic: str, value: bytes) -> Deployment:
    try:
        return Deployment.from_json(value)
    except msgspec.DecodeError as error:
        raise DataError("a deployment can't be read", where=f"topic {topic}", got=str(error)) from None


def _add_partitions(admin: AdminClient, topic: Topic, count: int) -> None:
    try:
        admin.create_partitions([NewPartitions(topic.name, count)], request_timeout=TIMEOUT_S)[topic.name].result()
    except KafkaException as error:
        raise unreachable(error) from error


def _make_topic(admin: AdminClient, name: str) -> None:
    topic = NewTopic(name, num_partitions=1, replication_factor=-1, config={"cleanup.policy": "compact"})
    try:
        admin.create_topics([topic], request_timeout=TIMEOUT_S)[name].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise ConfigError(
                "Kafka refuses to make a topic",
                where=name,
                got=error.args[0].str(),
                hint="make it, compacted and with one partition, or allow it to be made",
            ) from error
