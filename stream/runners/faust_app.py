"""The Faust app that reads for a worker: its offsets are the worker's, its acknowledgements follow Redis.

Faust 0.15 restarts every partition at its committed offset after a rebalance, drops what it holds whenever its flow is
suspended, and may hand on messages that it fetched before a seek. So every record is stamped where it is fetched, in
the consumer's own thread, with the reading it belongs to and its number in it (`Stamp`). Whoever takes the messages
sees by the stamp alone what is stale and where something was dropped.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import faust
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from yarl import URL

from schemas.errors import ConfigError
from stream.batch import Place
from stream.settings import StreamSettings

TAKE_WITHIN_S = 0.02
"""How long a batch waits for company: a freshness of 20 ms, where Faust's cost a batch is 1 ms."""
METADATA_AGE_S = 10.0
"""Partitions that are added are found this soon."""

log = logging.getLogger(__name__)

Take = Callable[[Sequence[Any]], Awaitable[None]]


class Stamp(NamedTuple):
    """Which reading of its partition a record belongs to, and its number in it."""

    reading: int
    number: int


class Readings(Protocol):
    """The worker's side: where its partitions are read. Called in the consumer's thread."""

    def take_away(self, places: set[Place]) -> None:
        """The group took partitions."""

    def give(self, places: set[Place]) -> None:
        """The group gave partitions."""

    def again(self) -> dict[Place, tuple[int, int]]:
        """A new reading of every partition that is being read: its number and its offset."""


def build_app(settings: StreamSettings, topics: Sequence[str], readings: Readings, take: Take) -> faust.App:
    """An app whose one agent hands the events of `topics` to `take`, batch by batch. To be built in its event loop.

    Whatever goes wrong in it ends it. Raises ConfigError for options of librdkafka that Faust has no word for.
    """
    config = settings.kafka_config()
    settings.home.mkdir(parents=True, exist_ok=True)  # Faust makes the folder below it, and no more
    session_s = settings.session_timeout_ms / 1_000
    app = faust.App(
        f"{settings.project}.stream",
        broker=[URL(f"kafka://{each.strip()}") for each in config["bootstrap.servers"].split(",")],
        broker_credentials=_credentials(config),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,
        broker_request_timeout=max(session_s + 5, 30.0),
        broker_rebalance_timeout=max(session_s, 10.0),
        broker_max_poll_interval=max(settings.poll_interval_max_ms / 1_000, session_s),
        broker_max_poll_records=settings.batch_events_max,
        # An offset that is gone is refused, never replaced by another one.
        consumer_auto_offset_reset="none",
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1_000),
        stream_buffer_maxsize=settings.batch_events_max,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        datadir=Path(settings.home) / "faust",
    )
    app.transport = _transport(app, readings)
    raw: Any = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}

    @app.agent(app.topic(*topics, **raw, allow_empty=True), name="fold")
    async def fold(stream: Any) -> None:
        try:
            async for events in stream.noack_take(settings.batch_events_max, within=TAKE_WITHIN_S):
                await take([event.message for event in events])
        except Exception as error:
            # Faust would start the agent again, behind what it has lost.
            await app.crash(error)
            raise

    return app


def _transport(app: faust.App, readings: Readings) -> driver.Transport:
    class Transport(driver.Transport):
        class Consumer(_Consumer):
            pass

    Transport.Consumer.readings = readings
    return Transport(app.conf.broker, app)


class _Forgetful(dict[Any, Any]):
    """Faust drops what lies below the last offset it saw; after a seek back that would be the events asked for."""

    def __getitem__(self, place: Any) -> None:
        return None

    def __setitem__(self, place: Any, offset: Any) -> None:
        pass


class _Listener(driver.ConsumerRebalanceListener):
    """Tells the worker what the group gives and takes."""

    _thread: _Thread

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._thread.consumer.readings.take_away({(each.topic, each.partition) for each in revoked})
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        places = list(assigned)
        self._thread.rest(places)
        await super().on_partitions_assigned(places)
        self._thread.consumer.readings.give({(each.topic, each.partition) for each in places})


class _Consumer(driver.Consumer):
    readings: Readings
    _thread: _Thread
    RebalanceListener = _Listener

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read_offset = _Forgetful()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def begin(self, starts: Mapping[Place, tuple[int, int]]) -> None:
        """Reads partitions from their offsets on, as the readings of these numbers."""
        await self._thread.call_thread(self._thread.begin, starts)

    async def rest(self, places: Iterable[Place]) -> None:
        """Fetches nothing more of the partitions."""
        await self._thread.call_thread(self._thread.rest_soon, [TopicPartition(*place) for place in places])

    async def acknowledge(self, positions: Mapping[Place, int]) -> None:
        """Commits offsets. A failure is a remark: nothing reads them back."""
        await self._thread.call_thread(self._thread.acknowledge, positions)


class _Thread(driver.AIOKafkaConsumerThread):
    """All methods but `__init__` run in the consumer's thread; between two awaits nothing else does."""

    consumer: _Consumer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stamps: dict[Place, Stamp] = {}

    async def begin(self, starts: Mapping[Place, tuple[int, int]]) -> None:
        consumer = self._ensure_consumer()
        for place, (reading, start) in starts.items():
            if reading <= self._stamps.get(place, Stamp(-1, 0)).reading:
                # A newer reading was faster.
                continue
            partition = TopicPartition(*place)
            try:
                consumer.seek(partition, start)
                consumer.resume(partition)
            except IllegalStateError:
                # Taken away meanwhile: the worker hears of it.
                continue
            self._stamps[place] = Stamp(reading, 0)

    def rest(self, places: Iterable[TopicPartition]) -> None:
        consumer = self._ensure_consumer()
        for place in places:
            try:
                consumer.pause(place)
                # A position of its own, or the client would look for a committed one.
                consumer.seek(place, 0)
            except IllegalStateError:
                continue

    async def rest_soon(self, places: Iterable[TopicPartition]) -> None:
        self.rest(places)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Faust wants to begin where it left off, having dropped what it held: that is where the worker is."""
        await self.call_thread(self._begin_again)
        return {}

    async def _begin_again(self) -> None:
        await self.begin(self.consumer.readings.again())

    async def acknowledge(self, positions: Mapping[Place, int]) -> None:
        consumer = self._ensure_consumer()
        mine = consumer.assignment()
        offsets = {TopicPartition(*place): OffsetAndMetadata(offset, "") for place, offset in positions.items()}
        offsets = {partition: offset for partition, offset in offsets.items() if partition in mine}
        if not offsets:
            return
        try:
            await consumer.commit(offsets)
        except (TimeoutError, KafkaError) as error:
            log.info("the positions could not be committed: %r", error)

    async def _fetch_records(self, *arguments: Any, **options: Any) -> Any:
        records = await super()._fetch_records(*arguments, **options)
        for partition, fetched in (records or {}).items():
            place = (partition.topic, partition.partition)
            stamp = self._stamps.get(place, Stamp(-1, 0))
            for number, record in enumerate(fetched, stamp.number):
                # A field that Kafka gave up long ago, and that Faust passes on.
                record.checksum = Stamp(stamp.reading, number)
            self._stamps[place] = Stamp(stamp.reading, stamp.number + len(fetched))
        return records

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads aborted events where it makes no transactions itself; the log does not hold them.
        consumer._isolation_level = "read_committed"
        return consumer


def _credentials(config: Mapping[str, str]) -> Any:
    """librdkafka's TLS and SASL options in Faust's words."""
    options = {name: value for name, value in config.items() if name != "bootstrap.servers"}
    protocol = options.pop("security.protocol", "plaintext").lower()
    tls = ssl.create_default_context(cafile=options.pop("ssl.ca.location", None)) if "ssl" in protocol else None
    if tls is not None and "ssl.certificate.location" in options:
        key = options.pop("ssl.key.location", None)
        tls.load_cert_chain(options.pop("ssl.certificate.location"), key, options.pop("ssl.key.password", None))
    mechanism = options.pop("sasl.mechanism", options.pop("sasl.mechanisms", "PLAIN"))
    username, password = options.pop("sasl.username", None), options.pop("sasl.password", None)
    if options:
        raise ConfigError(
            "the Faust runner has no word for these options of Kafka's client",
            where="HEADRACE_KAFKA_OPTIONS",
            got=", ".join(sorted(options)),
            hint="leave them out, or run the worker with --runner confluent",
        )
    if protocol.startswith("sasl"):
        return SASLCredentials(username=username, password=password, ssl_context=tls, mechanism=mechanism)
    return SSLCredentials(tls) if tls is not None else None
