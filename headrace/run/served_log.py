"""The log of served vectors: Kafka's, handed to the server, whose processes each make their own."""

from __future__ import annotations

from headrace.settings import read_settings
from stream.log import KafkaLog
from stream.settings import StreamSettings


def make_log() -> KafkaLog:
    """A log of this process."""
    return KafkaLog(read_settings(StreamSettings))
