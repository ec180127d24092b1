"""What can't be folded goes to the rejects topic, before any checkpoint moves past it, each once."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import DeliveryError, NotReady
from schemas.rejection import Rejection, encode_rejection
from stream.batch import Place
from stream.clients import client_config
from stream.settings import StreamSettings

TIMEOUT_S = 10.0
TRANSACTION_S = 30.0
"""Whoever takes over from a worker that died in a transaction ends it; the broker itself does so after this."""
WRITERS_MAX = 16
"""Of each a producer with its threads; a worker has rejects of so many partitions at once in a bad hour only."""
MESSAGE_BYTES_MAX = 8 << 20
"""A rejection carries its message in base64; a message is at most 1 MiB where nobody has said otherwise."""
HOPELESS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_CONFIG)


class Rejects:
    """Writes rejections to `{project}.rejects`, each once, whoever reads an offset again and whenever a worker dies.

    One partition's rejections are written in transactions that also commit, for the group `{project}.rejects`, the
    offset below which all are written: what lies below it is dropped. A worker that opens a partition's writer fences
    whoever had it before (a zombie, say), and reads from where that one came to. Kafka forgets the offset with the
    topic, as it should; and `offsets.retention.minutes` (7 days) after the last one was written.

    `counts` are of those that this process wrote, by reason.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._waiting: dict[Place, list[Rejection]] = {}
        self._writers: OrderedDict[Place, _Writer] = OrderedDict()
        self._group: Consumer | None = None

    def put(self, rejections: Sequence[Rejection]) -> None:
        """Takes rejections in, each partition's by ascending offset."""
        for each in rejections:
            self._waiting.setdefault((each.topic, each.partition), []).append(each)

    def flush(self) -> None:
        """Returns when the broker has everything; at once where there is nothing.

        Raises NotReady where it is not there within TIMEOUT_S (call again), DeliveryError where it never will be.
        """
        for place in list(self._waiting):
            try:
                written = self._writer(place).write(self._waiting[place])
            except KafkaException as error:
                # Whatever became of the transaction: the next writer ends it, and asks how far it came.
                self._drop(place)
                raise self._explained(error.args[0]) from error
            self.counts.update(each.reason for each in written)
            del self._waiting[place]

    def close(self) -> None:
        """Lets the producers go; what is not flushed is lost, and no checkpoint has moved past it."""
        for place in list(self._writers):
            self._drop(place)
        if self._group is not None:
            self._group.close()
            self._group = None

    def _writer(self, place: Place) -> _Writer:
        if place not in self._writers:
            if self._group is None:
                self._group = Consumer(
                    {
                        **client_config(self._settings),
                        "group.id": self._settings.rejects_topic,
                        "enable.auto.commit": False,
                    }
                )
            while len(self._writers) >= WRITERS_MAX:
                self._writers.popitem(last=False)
            self._writers[place] = _Writer(self._settings, place, self._group)
        self._writers.move_to_end(place)
        return self._writers[place]

    def _drop(self, place: Place) -> None:
        self._writers.pop(place, None)

    def _explained(self, error: KafkaError) -> Exception:
        where = f"topic {self._settings.rejects_topic}"
        if error.code() in HOPELESS:
            return DeliveryError("a rejection can't be written", where=where, got=error.str())
        return NotReady(
            "the rejects topic takes nothing, so no checkpoint moves past a rejected event",
            where=where,
            got=error.str(),
            hint="see that the topic exists (`headrace apply` makes it) and that the broker is up",
        )


class _Writer:
    """The rejects of one partition. Every method raises KafkaException; the writer is then to be let go."""

    def __init__(self, settings: StreamSettings, place: Place, group: Consumer) -> None:
        self._topic = settings.rejects_topic
        self._place = place
        self._group = group
        self._error: KafkaError | None = None
        self._producer = Producer(
            {
                **client_config(settings),
                "transactional.id": f"{settings.rejects_topic}.{place[0]}.{place[1]}",
                "transaction.timeout.ms": int(TRANSACTION_S * 1_000),
                "message.max.bytes": MESSAGE_BYTES_MAX,
                "message.timeout.ms": int(TIMEOUT_S * 1_000),
                "topic.metadata.propagation.max.ms": int(TIMEOUT_S * 500),
                "linger.ms": 0,
            }
        )
        self._producer.init_transactions(TIMEOUT_S)
        [found] = group.committed([TopicPartition(*place)], timeout=TIMEOUT_S)
        if found.error is not None:
            raise KafkaException(found.error)
        self._written = max(found.offset, 0)
        """Below this offset every rejection is written."""

    def write(self, rejections: Sequence[Rejection]) -> list[Rejection]:
        """Those of the rejections that were not written before; they are now."""
        new = [each for each in rejections if each.offset >= self._written]
        if not new:
            return []
        self._error = None
        self._producer.begin_transaction()
        for each in new:
            key = f"{each.topic}/{each.partition}/{each.offset}".encode()
            self._send(key, encode_rejection(each))
        self._producer.flush(TIMEOUT_S)
        if self._error is not None:
            raise KafkaException(self._error)
        end = max(each.offset for each in new) + 1
        self._producer.send_offsets_to_transaction(
            [TopicPartition(*self._place, end)], self._group.consumer_group_metadata(), TIMEOUT_S
        )
        self._producer.commit_transaction(TIMEOUT_S)
        self._written = end
        return new

    def _send(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._error = self._error or error
