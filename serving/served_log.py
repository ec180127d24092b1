"""The log of served vectors: sampled by entity, encoded after the answer has gone, dropped and counted when too many.

`headrace` hands the log in (Kafka's, `stream/log.py`); without one nothing is logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from typing import Any, Protocol

import orjson
import pyarrow as pa

from features.plan import Definitions
from features.served import encode_served, served_schema, served_topic
from schemas.errors import HeadraceError
from schemas.row import entity_key
from serving.checkpoints import logged_positions
from serving.entities import Columns
from serving.metrics import Metrics
from serving.reading import Reading
from serving.vectors import Vectors

SLICE_VECTORS = 8
"""Vectors encoded before other work gets its turn: about half a millisecond."""
_LOGGER = logging.getLogger(__name__)


class Log(Protocol):
    """Where messages are appended; `append` only buffers, and raises BufferError or HeadraceError when it is full."""

    def append(self, topic: str, key: bytes, value: bytes) -> None: ...
    def flush(self) -> object: ...


class ServedLog:
    """Logs the vectors of services that declare `log=`; for one event loop.

    `offer` costs the answer a hash an entity; the rest happens in `run`, whenever nobody waits.
    """

    def __init__(self, log: Log, metrics: Metrics, buffer_max: int) -> None:
        self._log = log
        self._metrics = metrics
        self._buffer_max = buffer_max
        self._waiting: deque[tuple[Definitions, Vectors, list[int], list[str]]] = deque()
        self._vectors = 0
        self._wake = asyncio.Event()
        self._schemas: dict[tuple[int, str], pa.Schema] = {}

    def wants(self, reading: Reading, entities: Columns, count: int) -> bool:
        """True where some vector of an answer is to be logged."""
        service = reading.service
        if service is None or not service.log:
            return False
        return any(is_sampled(text, service.log) for text in entity_texts(reading, entities, count))

    def offer(self, definitions: Definitions, vectors: Vectors) -> None:
        """Takes the sampled vectors of an answer, as many as there is room for."""
        service = vectors.reading.service
        if service is None or not service.log:
            return
        texts = entity_texts(vectors.reading, vectors.entities, vectors.count)
        chosen = [n for n, text in enumerate(texts) if is_sampled(text, service.log)]
        room = self._buffer_max - self._vectors
        if len(chosen) > room:
            self._metrics.dropped.labels(service.name, "buffer full").inc(len(chosen) - room)
            chosen = chosen[:room]
        if chosen:
            self._vectors += len(chosen)
            self._waiting.append((definitions, vectors, chosen, [texts[n] for n in chosen]))
            self._wake.set()

    async def run(self) -> None:
        """Encodes and appends what was offered, for ever; what still waits when it is cancelled is written at once."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    definitions, vectors, chosen, texts = self._waiting.popleft()
                    for start in range(0, len(chosen), SLICE_VECTORS):
                        part = slice(start, start + SLICE_VECTORS)
                        self._write(definitions, vectors, chosen[part], texts[part])
                        await asyncio.sleep(0)
        finally:
            while self._waiting:
                self._write(*self._waiting.popleft())
            await asyncio.to_thread(self._log.flush)

    def _write(self, definitions: Definitions, vectors: Vectors, chosen: list[int], texts: list[str]) -> None:
        service = vectors.reading.service
        assert service is not None
        self._vectors -= len(chosen)
        kept = (id(definitions), service.name)
        if kept not in self._schemas:
            self._schemas = {kept: served_schema(definitions, service)}
        messages = encode_served(self._schemas[kept], served_columns(vectors, chosen))
        topic = served_topic(service.name)
        for number, (text, message) in enumerate(zip(texts, messages, strict=True)):
            try:
                self._log.append(topic, text.encode(), message)
            except (BufferError, HeadraceError) as error:
                lost = len(messages) - number
                self._metrics.dropped.labels(service.name, "log full").inc(lost)
                _LOGGER.warning("%d vectors of %s were not logged: %s", lost, service.name, error)
                return
        self._metrics.logged.labels(service.name).inc(len(messages))


def entity_texts(reading: Reading, entities: Columns, count: int) -> list[str]:
    """Each vector's entity as one text, over all its join keys; a null key is an empty part."""
    columns = [entities[key.name] for key in reading.join_keys]
    if not columns:
        return [""] * count
    return [entity_key(["" if part is None else part for part in row]) for row in zip(*columns, strict=True)]


def is_sampled(text: str, share: float) -> bool:
    """True for that share of all entities, always the same ones: by the md5 of the entity's text."""
    if share >= 1:
        return True
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def served_columns(vectors: Vectors, chosen: list[int]) -> dict[str, list[Any]]:
    """The columns of `served.<service>` for some of the vectors."""
    columns: dict[str, list[Any]] = {"instant": vectors.instants_us[chosen].tolist()}
    for key in vectors.reading.join_keys:
        columns[key.name] = [vectors.entities[key.name][n] for n in chosen]
    for column in vectors.reading.request:
        columns[column.name] = [vectors.request[column.name][n] for n in chosen]
    for name, values in zip(vectors.reading.full_names, vectors.columns, strict=True):
        plain = values.values[chosen].tolist()
        columns[name] = [v if ok else None for v, ok in zip(plain, values.valid[chosen].tolist(), strict=True)]
    fingerprints = {view.read.plan.name: view.read.plan.fingerprint for view in vectors.views}
    fingerprints |= {plan.name: plan.fingerprint for plan in vectors.reading.derived}
    columns["features"] = [orjson.dumps(vectors.reading.full_names).decode()] * len(chosen)
    columns["fingerprints"] = [orjson.dumps(fingerprints).decode()] * len(chosen)
    columns["checkpoints"] = [_checkpoints(vectors, n) for n in chosen]
    return columns


def _checkpoints(vectors: Vectors, entity: int) -> str:
    entries = {view.read.plan.name: logged_positions(view.checkpoints[entity]) for view in vectors.views}
    return orjson.dumps(entries).decode()
