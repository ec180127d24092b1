"""Online state for serving's tests: events folded by the real kernel and merged by the real script."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from features.deltas import Deltas
from features.kernel import Kernel
from features.plan import Definitions, ViewPlan
from schemas.event import EventSpec, log_schema
from schemas.row import NO_EVENT, checkpoint_redis_key, hash_redis_key, row_redis_key
from schemas.slots import is_cluster, node_urls
from serving.entities import EPOCH
from stream.script import has_variable_cells, merge_script

TOPIC_ID = b"a topic's own id"


def us(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


def open_client(url: str) -> redis.Redis:
    """redis-py's own client of a Redis or a Cluster."""
    if is_cluster(url):
        return redis.RedisCluster.from_url(node_urls(url)[0])
    return redis.Redis.from_url(url)


class Online:
    """One Redis with the state of one project's views; every event goes to partition 0 of its topic."""

    def __init__(self, url: str, definitions: Definitions) -> None:
        self.url = url
        self.redis = open_client(url)
        self.definitions = definitions
        self.kernel = Kernel()
        self.events: dict[str, list[dict[str, Any]]] = {name: [] for name in definitions.events}

    def advance(self) -> None:
        """Checkpoints for every shard, though nothing happened: what a worker does within a second."""
        self.add({})

    def add(self, events: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Appends events (by event name) to their topics and folds them into all views."""
        starts = {name: len(rows) for name, rows in self.events.items()}
        for name, rows in events.items():
            self.events[name] += [dict(row) for row in rows]
        for plan in self.definitions.views.values():
            self._fold(plan, starts)

    def log(self, name: str, start: int = 0) -> pa.Table:
        """The topic from an offset on, as it stands in the event log."""
        spec = self.definitions.events[name]
        return log_table(spec, self.events[name][start:], start)

    def _fold(self, plan: ViewPlan, starts: Mapping[str, int]) -> None:
        names = [source.event.name for source in plan.sources]
        deltas = self.kernel.fold(plan, [self.log(name, starts[name]) for name in names])
        expectations = b"".join(
            struct.pack("<Ii16sqqq", number, 0, TOPIC_ID, start, len(self.events[name]), self._newest(name))
            for number, name in enumerate(names)
            for start in [self._folded(plan, number)]
        )
        script = merge_script(plan)
        for shard in range(plan.shards):
            keys, arguments = [checkpoint_redis_key(plan.storage_id, shard)], [b"generation"[:8], expectations, b"0"]
            self._rows(plan, deltas, shard, keys, arguments)
            answer = self.redis.eval(script.text, len(keys), *keys, *arguments)
            assert answer[0] == 1, answer

    def _rows(self, plan: ViewPlan, deltas: Deltas, shard: int, keys: list[bytes], arguments: list[bytes]) -> None:
        variable = has_variable_cells(plan)
        for row in np.flatnonzero(deltas.shards == shard).tolist():
            start, stop = deltas.starts[row], deltas.starts[row + 1]
            keys.append(row_redis_key(plan.storage_id, shard, deltas.keys[row]))
            arguments.append(struct.pack("<q", deltas.newest_us[row]) + deltas.records[start:stop].tobytes())
            if variable:
                assert deltas.var is not None
                keys.append(hash_redis_key(plan.storage_id, shard, deltas.keys[row]))
                arguments.append(b"".join(deltas.var[start:stop]))

    def _folded(self, plan: ViewPlan, source: int) -> int:
        stored = self.redis.get(checkpoint_redis_key(plan.storage_id, 0))
        if not stored:
            return -1
        entries = list(struct.iter_unpack("<Ii16sqq", stored[8:]))
        return next(entry[3] for entry in entries if entry[0] == source)

    def _newest(self, name: str) -> int:
        time = self.definitions.events[name].time
        return max((us(row[time]) for row in self.events[name]), default=NO_EVENT)


def log_table(spec: EventSpec, rows: Sequence[Mapping[str, Any]], offset: int = 0) -> pa.Table:
    """Events as they stand in the event log, in partition 0 from an offset on."""
    columns = {column.name: [row.get(column.name) for row in rows] for column in spec.columns}
    kafka = {
        "kafka_partition": [0] * len(rows),
        "kafka_offset": list(range(offset, offset + len(rows))),
        "kafka_timestamp": [row[spec.time] for row in rows],
        "kafka_key": [None] * len(rows),
    }
    return pa.table(columns | kafka, schema=log_schema(spec))
