"""A worker's feed by Faust: an app in a thread of its own, whose agent hands its events to the worker's fold.

It holds what the feed of confluent-kafka holds (stream/feed.py): the checkpoints say where partitions are read, and
Kafka hears of an event only once Redis has it. An error anywhere in the app ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.types import Message

from schemas.decode import Batch
from schemas.errors import DeliveryError, HeadraceError, NotReady
from stream.batch import Place
from stream.intake import Fetched
from stream.probe import timestamps_ms
from stream.runners.faust_app import Stamp, build_app
from stream.settings import StreamSettings
from stream.topics import admin_client, offsets_at, stable_ends

STOP_TIMEOUT_S = 30.0
ROOM_POLL_S = 0.005
LOOK_FOR_ENDS_EVERY_S = 0.2
BUSY_EVENTS = 50
"""So many at once, and more are coming: Faust hands on some thousand a second."""
GATHER_S = 0.2
SILENT_S = 3.0
"""After this long without a message of a partition that has some, they are fetched again: Faust dropped them."""

log = logging.getLogger(__name__)


class _Reading(NamedTuple):
    """One reading of a partition: its number, the record that comes next, the offset that may come next."""

    number: int
    next_record: int
    offset: int


class _Message:
    """Faust's message, as schemas.decode asks for it."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def value(self) -> bytes | None:
        value: bytes | None = self._message.value
        return value

    def key(self) -> bytes | None:
        key: bytes | None = self._message.key
        return key

    def partition(self) -> int:
        return int(self._message.partition)

    def offset(self) -> int:
        return int(self._message.offset)

    def timestamp(self) -> tuple[int, int]:
        """confluent-kafka's kinds: 1 the producer's time, 2 the broker's. Faust turned milliseconds into seconds."""
        return int(self._message.timestamp_type) + 1, round(self._message.timestamp * 1_000)

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        headers = self._message.headers
        return list(headers.items() if isinstance(headers, Mapping) else headers) if headers else None


class FaustFeed:
    """See stream/feed.py; `given` and `taken` change in the app's thread, under the lock that `fetch` takes."""

    def __init__(self, settings: StreamSettings) -> None:
        self.given: set[Place] = set()
        self.joined = False
        self.waiting_for = ""
        self._taken: set[Place] = set()
        self._settings = settings
        self._admin = admin_client(settings)
        self._arrived = threading.Condition(threading.RLock())
        self._batches: deque[Sequence[Message]] = deque()
        self._buffered = 0
        self._busy = False
        self._readings: dict[Place, _Reading] = {}
        self._numbers = 0
        self._heard: dict[Place, float] = {}
        self._ended: dict[Place, int] = {}
        self._next_look = 0.0
        self._failure: BaseException | None = None
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._app: Any = None
        self._thread: threading.Thread | None = None

    @property
    def taken(self) -> set[Place]:
        return self._taken

    @taken.setter
    def taken(self, places: set[Place]) -> None:
        with self._arrived:
            self._taken = places

    @property
    def reading(self) -> set[Place]:
        with self._arrived:
            return set(self._readings)

    def subscribe(self, topics: Sequence[str]) -> None:
        self._thread = threading.Thread(target=self._run, args=(topics,), name="faust", daemon=True)
        self._thread.start()

    def read(self, starts: Mapping[Place, int]) -> None:
        with self._arrived:
            begun = {place: self._begin(place, start) for place, start in starts.items() if place in self.given}
        if begun:
            self._wait_for(self._app.consumer.begin(begun))

    def rest(self, places: Iterable[Place]) -> None:
        with self._arrived:
            resting = [place for place in places if self._readings.pop(place, None) is not None]
        if resting:
            self._wait_for(self._app.consumer.rest(resting))

    def fetch(self, timeout_s: float) -> Fetched:
        topics: dict[str, list[_Message]] = {}
        dropped: dict[Place, int] = {}
        if self._busy:
            # Events are on their way: a fold of more of them together costs a fraction.
            time.sleep(GATHER_S)
        with self._arrived:
            if not self._batches and self._failure is None:
                self._arrived.wait(timeout_s)
            self._raise_failure()
            count = 0
            while self._batches and count < self._settings.batch_events_max:
                batch = self._batches.popleft()
                count += len(batch)
                self._buffered -= len(batch)
                for message in batch:
                    self._sort(message, topics, dropped)
            self._busy = BUSY_EVENTS <= count < self._settings.batch_events_max
        if dropped:
            log.info("Faust dropped messages of %s; they are fetched again", sorted(dropped))
            self.read(dropped)
        batches = {topic: Batch.of(topic, messages) for topic, messages in topics.items()}
        return Fetched(batches, self._ends(topics))

    def wait(self, seconds: float) -> None:
        # The app's own threads speak to the group meanwhile; what comes stays in the bounded buffers.
        time.sleep(seconds)
        self._raise_failure()

    def offsets_at(self, times_ms: Mapping[Place, int]) -> dict[Place, int]:
        return offsets_at(self._admin, times_ms)

    def commit(self, positions: Mapping[Place, int]) -> None:
        mine = {place: offset for place, offset in positions.items() if place in self.given}
        if mine and self._failure is None:
            asyncio.run_coroutine_threadsafe(self._app.consumer.acknowledge(mine), self._loop)

    def close(self) -> None:
        self._closing = True
        if self._thread is None:
            self._loop.close()
            return
        with suppress(RuntimeError):
            # The loop is closed where the app has ended by itself.
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("Faust does not end within %s s; left to itself", STOP_TIMEOUT_S)

    # What the consumer's thread asks and tells (faust_app.Readings).

    def take_away(self, places: set[Place]) -> None:
        with self._arrived:
            self.given -= places
            self._taken |= places
            for place in places:
                self._readings.pop(place, None)
                self._heard.pop(place, None)

    def give(self, places: set[Place]) -> None:
        with self._arrived:
            self.joined = True
            self.given |= places

    def again(self) -> dict[Place, tuple[int, int]]:
        with self._arrived:
            return {place: self._begin(place, reading.offset) for place, reading in self._readings.items()}

    # Within.

    def _begin(self, place: Place, start: int) -> tuple[int, int]:
        self._numbers += 1
        self._readings[place] = _Reading(self._numbers, 0, start)
        self._heard[place] = time.monotonic()
        self._ended.pop(place, None)
        return self._numbers, start

    def _sort(self, message: Message, topics: dict[str, list[_Message]], dropped: dict[Place, int]) -> None:
        place = (str(message.topic), int(message.partition))
        reading, stamp = self._readings.get(place), message.checksum
        if reading is None or not isinstance(stamp, Stamp) or stamp.reading != reading.number or place in dropped:
            return
        if stamp.number != reading.next_record:
            dropped[place] = reading.offset
            return
        self._readings[place] = _Reading(reading.number, stamp.number + 1, message.offset + 1)
        self._heard[place] = time.monotonic()
        if message.offset >= reading.offset:
            topics.setdefault(place[0], []).append(_Message(message))

    def _ends(self, topics: Mapping[str, Sequence[Any]]) -> dict[Place, int]:
        """Partitions that are read to their end, each end once; partitions gone silent before it are begun again."""
        now = time.monotonic()
        if topics or now < self._next_look or not self._readings:
            return {}
        self._next_look = now + LOOK_FOR_ENDS_EVERY_S
        with self._arrived:
            if self._batches:
                return {}
            places = {place: reading.offset for place, reading in self._readings.items()}
            silent = {place for place in places if now - self._heard[place] > SILENT_S}
        try:
            ends = stable_ends(self._admin, places)
            reached = {place: ends[place] for place, offset in places.items() if offset >= ends[place]}
            # Markers of transactions stand between the last message and the end: there is nothing to hear.
            quiet = {place: places[place] for place in silent - reached.keys()}
            found = timestamps_ms(self._settings, quiet)
        except NotReady as error:
            self.waiting_for = str(error)
            return {}
        self.waiting_for = ""
        reached |= {place: ends[place] for place, stamp in found.items() if stamp is None}
        lost = {place: places[place] for place, stamp in found.items() if stamp is not None}
        if lost:
            log.warning("nothing is heard of %s, which have messages; they are fetched again", sorted(lost))
            self.read(lost)
        with self._arrived:
            fresh = {}
            for place, end in reached.items():
                reading = self._readings.get(place)
                if reading is not None and reading.offset == places[place] and self._ended.get(place) != end:
                    self._ended[place] = fresh[place] = end
            return fresh

    async def _take(self, messages: Sequence[Message]) -> None:
        """The agent's hand: waits until there is room."""
        while self._buffered >= self._settings.batch_events_max and not self._closing:
            await asyncio.sleep(ROOM_POLL_S)
        with self._arrived:
            self._batches.append(messages)
            self._buffered += len(messages)
            self._arrived.notify()

    def _run(self, topics: Sequence[str]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live(topics))
        except BaseException as error:
            self._fail(error)
        finally:
            self._loop.close()

    async def _live(self, topics: Sequence[str]) -> None:
        self._app = app = build_app(self._settings, topics, self, self._take)
        ended: set[asyncio.Task[Any]] = set()
        try:
            await app.start()
            ended = {asyncio.create_task(self._ending.wait()), asyncio.create_task(app.wait_until_stopped())}
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ended:
                task.cancel()
            await app.stop()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if not self._closing:
            self._fail(app.crash_reason or RuntimeError("the app stopped by itself"))

    def _fail(self, error: BaseException) -> None:
        with self._arrived:
            self._failure = self._failure or error
            self._arrived.notify()

    def _raise_failure(self) -> None:
        error = self._failure
        if error is None or self._closing:
            return
        if isinstance(error, HeadraceError):
            raise error
        if isinstance(error, (OffsetOutOfRangeError, NoOffsetForPartitionError)):
            raise DeliveryError(
                "Kafka has not got the offset that comes next",
                got=str(error),
                hint="its retention deleted events that were never folded, or the topic was made anew; "
                "with the events landed in Iceberg, start the worker again",
            ) from error
        raise DeliveryError(
            "the Faust app ended", got=repr(error), hint="see its log; start the worker again"
        ) from error

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        while True:
            try:
                return future.result(0.2)
            except TimeoutError:
                self._raise_failure()
