"""From where a partition must be read so that the ids of the last `dedupe_within` are known at its first event."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

from schemas.errors import NotReady
from stream.batch import Place
from stream.intake import Intake
from stream.settings import StreamSettings
from stream.source import Source

PROBE_TIMEOUT_S = 10.0
CLOCKS_DIFFER_S = 60
"""How far this machine's clock may be from the broker's, where no message says what time it is there."""


def read_from(
    source: Source, intake: Intake, settings: StreamSettings, starts: Mapping[Place, int]
) -> dict[Place, int]:
    """The offset to read each partition from: its start, or as far back as its topic's ids reach.

    Raises NotReady where Kafka does not answer.
    """
    probed = {place: start for place, start in starts.items() if start > 0 and intake.dedupe_within_us(place[0])}
    if not probed:
        return dict(starts)
    times = {
        place: _time_ms(settings, place, start) - intake.dedupe_within_us(place[0]) // 1_000 - 1
        for place, start in probed.items()
    }
    return {place: min(starts[place], back) for place, back in (dict(starts) | source.offsets_at(times)).items()}


def _time_ms(settings: StreamSettings, place: Place, start: int) -> int:
    """A broker's timestamp that is not after that of the event at `start`: the one before it has one."""
    consumer = Consumer(
        {
            **settings.kafka_config(),
            "group.id": f"{settings.project}.stream.probe",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        consumer.assign([TopicPartition(*place, start - 1)])
        message = consumer.poll(PROBE_TIMEOUT_S)
        if message is None:
            raise NotReady(
                "Kafka does not answer", where=f"{place[0]}/{place[1]}", got=f"nothing in {PROBE_TIMEOUT_S} s"
            )
        if message.error() is None and (message.offset() or 0) < start:
            return message.timestamp()[1]
        return int((time.time() - CLOCKS_DIFFER_S) * 1_000)
    finally:
        consumer.close()
