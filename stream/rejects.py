"""What can't be folded goes to the rejects topic, before any checkpoint moves past it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import DeliveryError, NotReady
from schemas.rejection import Rejection, encode_rejection
from stream.clients import client_config
from stream.settings import StreamSettings

FLUSH_TIMEOUT_S = 10.0
MESSAGE_BYTES_MAX = 8 << 20
"""A rejection carries its message in base64; a message is at most 1 MiB where nobody has said otherwise."""
HOPELESS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_CONFIG)

log = logging.getLogger(__name__)


class Rejects:
    """Writes rejections to `{project}.rejects`, each at least once: keyed by place, so that copies are found.

    What was put and is not yet acknowledged is kept, and sent again by the next `flush`.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self.counts: Counter[str] = Counter()
        self._topic = settings.rejects_topic
        self._config = client_config(settings)
        self._producer: Producer | None = None
        self._waiting: list[Rejection] = []
        self._written: dict[tuple[str, int], int] = {}
        self._error: KafkaError | None = None

    def put(self, rejections: Sequence[Rejection]) -> None:
        """Takes rejections in; one that this worker has taken before (it reads an offset again) is dropped."""
        for each in rejections:
            place = (each.topic, each.partition)
            if each.offset >= self._written.get(place, 0):
                self._written[place] = each.offset + 1
                self._waiting.append(each)
                self.counts[each.reason] += 1

    def flush(self) -> None:
        """Returns when the broker has everything; at once where there is nothing.

        Raises NotReady where it is not there within FLUSH_TIMEOUT_S (call again), DeliveryError where it never will be.
        """
        if not self._waiting:
            return
        producer = self._open()
        self._error = None
        left: set[int] = set(range(len(self._waiting)))
        for number, rejection in enumerate(self._waiting):
            self._send(producer, number, rejection, left)
        producer.flush(FLUSH_TIMEOUT_S)
        if not left:
            self._waiting.clear()
            return
        # What is still under way would come twice; what comes twice is told apart by its key.
        producer.purge()
        producer.poll(0)
        self._waiting = [rejection for number, rejection in enumerate(self._waiting) if number in left]
        reason = self._error.str() if self._error else f"no answer within {FLUSH_TIMEOUT_S:.0f} s"
        if self._error and self._error.code() in HOPELESS:
            raise DeliveryError("a rejection can't be written", where=f"topic {self._topic}", got=reason)
        raise NotReady(
            "the rejects topic takes nothing, so no checkpoint moves past a rejected event",
            where=f"topic {self._topic}",
            got=reason,
            hint="see that the topic exists (`headrace apply` makes it) and that the broker is up",
        )

    def close(self) -> None:
        """Lets the producer go; what is not flushed is lost, and no checkpoint has moved past it."""
        self._producer = None

    def _send(self, producer: Producer, number: int, rejection: Rejection, left: set[int]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                left.discard(number)
            elif error.code() != KafkaError._PURGE_QUEUE:
                self._error = error

        key = f"{rejection.topic}/{rejection.partition}/{rejection.offset}".encode()
        value = encode_rejection(rejection)
        while True:
            try:
                producer.produce(self._topic, value, key, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                self._error = error.args[0]
                return

    def _open(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                {
                    **self._config,
                    "acks": "all",
                    "enable.idempotence": True,
                    "message.max.bytes": MESSAGE_BYTES_MAX,
                    "linger.ms": 0,
                }
            )
        return self._producer
