"""What every Kafka client here is told beside its own options: where Kafka is, and where its remarks go."""

from __future__ import annotations

import logging
from typing import Any

from schemas.settings import ConnectionSettings

TROUBLE = frozenset({"FAIL", "ERROR", "GETPID", "REQTMOUT"})
"""What librdkafka says at each attempt to reach a broker that isn't there; whoever waits for it says so once."""


class _TroubleIsDetail(logging.Filter):
    """Takes librdkafka's remarks on a missing broker down to DEBUG; everything else keeps its level."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and record.args and record.args[0] in TROUBLE:
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
            return log.isEnabledFor(logging.DEBUG)
        return True


log = logging.getLogger("stream.librdkafka")
log.addFilter(_TroubleIsDetail())


def client_config(settings: ConnectionSettings) -> dict[str, Any]:
    """The connection part of a client's configuration, and its logger. Raises ConfigError where no Kafka is known."""
    return {**settings.kafka_config(), "logger": log}
