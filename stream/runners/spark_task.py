"""What a task of the Spark runner does: the rows of some partitions, as Arrow, folded into Redis."""

from __future__ import annotations

import atexit
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from features.deltas import int64_of
from features.kernel import Kernel
from features.plan import Definitions
from schemas.decode import Batch
from schemas.errors import DeliveryError, NotReady
from schemas.event import Event
from stream.apply import Applier
from stream.batch import Place
from stream.intake import Fetched, Intake
from stream.patience import Patience
from stream.rejects import Rejects
from stream.settings import StreamSettings
from stream.store import Store
from stream.streamed import Streamed
from stream.topics import admin_client

FOLDED_SCHEMA = (
    "topic string, partition int, end bigint, newest_us bigint, taken_us bigint, counts string, rejected string"
)
WENT_BACK = "HEADRACE Redis went back"
WAITED = "HEADRACE a task has waited for long enough"
"""In the errors of a task after which all partitions are placed anew."""
ATTEMPT_S = 60.0
"""So long a task waits for a service that is down; then the query ends, and the worker waits instead."""

Load = Callable[[], Mapping[str, type[Event]]]


class FoldTask:
    """Sent to the executors: definitions and settings, no connection. `at` gives the function for one micro-batch."""

    def __init__(self, definitions: Definitions, load: Load, settings: StreamSettings) -> None:
        self._definitions = definitions
        self._load = load
        self._settings = settings
        self._id = uuid.uuid4().hex

    def at(
        self, standing: Mapping[Place, tuple[int, int]]
    ) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
        """Folds what comes behind `standing`: for each partition the offset below which all is folded."""

        def fold(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            folding = _KEPT.pop(self._id, None) or self._open()
            try:
                folding.begin(standing)
                for batch in batches:
                    folding.take(batch)
                yield from folding.done()
            except BaseException:
                folding.close()
                raise
            _KEPT[self._id] = folding

        return fold

    def _open(self) -> _Folding:
        _let_go()
        return _Folding(self._definitions, self._load(), self._settings)


class _Folding:
    """What a process of Spark's keeps between tasks: making decoders, a kernel and connections takes 0.3 s."""

    def __init__(self, definitions: Definitions, events: Mapping[str, type[Event]], settings: StreamSettings) -> None:
        self._standing: Mapping[Place, tuple[int, int]] = {}
        self._patience = Patience(threading.Event(), settings.retry_max_s, self._wait)
        self._waiting_since = 0.0
        self._streamed = Streamed(definitions, events, admin_client(settings))
        self._rejects = Rejects(settings)
        self._intake = Intake(self._streamed.events, self._rejects, settings.schema_registry)
        self._kernel = Kernel()
        self._store = Store.open(settings)
        self._applier = Applier(self._streamed.folds(), self._store, self._kernel, self._patience)
        self._told: Counter[str] = Counter()
        self._told_rejected: Counter[str] = Counter()

    def begin(self, standing: Mapping[Place, tuple[int, int]]) -> None:
        """A task begins: it knows nothing of the partitions that the one before had."""
        self._standing = standing
        for place in list(self._intake.positions):
            self._intake.end(place)
            self._applier.leave(place)

    def take(self, rows: pa.RecordBatch) -> None:
        """Folds some rows."""
        self._waiting_since = time.monotonic()
        table = pa.Table.from_batches([rows])
        batches = {}
        for topic in pc.unique(table["topic"]).to_pylist():
            batch = _batch_of(topic, table.filter(pc.equal(table["topic"], topic)))
            for partition in np.unique(batch.partitions).tolist():
                self._begin((topic, partition))
            batches[topic] = batch
        taken = self._patience.until_done(lambda: self._intake.take(Fetched(batches, {})))
        self._patience.until_done(self._rejects.flush)
        if taken.moves:
            self._applier.apply(taken)
        self._check()

    def done(self) -> Iterator[pa.RecordBatch]:
        """What was done, once all of it has merged."""
        self._waiting_since = time.monotonic()
        self._applier.settle()
        self._check()
        moves = [(place, self._intake.standing(place)) for place in self._intake.positions]
        counts, rejected = self._counts(), Counter({str(reason): n for reason, n in self._rejects.counts.items()})
        if moves:
            news = [orjson.dumps(dict(counts - self._told)).decode()]
            bad = [orjson.dumps(dict(rejected - self._told_rejected)).decode()]
            self._told, self._told_rejected = counts, rejected
            # Of the task as a whole: told once.
            others = ["{}"] * (len(moves) - 1)
            yield pa.RecordBatch.from_pydict(
                {
                    "topic": [place[0] for place, _ in moves],
                    "partition": pa.array([place[1] for place, _ in moves], pa.int32()),
                    "end": pa.array([move.end for _, move in moves], pa.int64()),
                    "newest_us": pa.array([move.newest_us for _, move in moves], pa.int64()),
                    "taken_us": pa.array([self._intake.taken_us[place] for place, _ in moves], pa.int64()),
                    "counts": news + others,
                    "rejected": bad + others,
                }
            )

    def close(self) -> None:
        self._applier.close()
        self._rejects.close()
        self._store.close()
        self._kernel.close()

    def _wait(self, seconds: float) -> None:
        """Passes the time; raises NotReady once a service has kept the task waiting for too long."""
        if time.monotonic() - self._waiting_since > ATTEMPT_S:
            raise NotReady(WAITED, got=self._patience.waiting_for)
        time.sleep(seconds)

    def _counts(self) -> Counter[str]:
        """Of this process, all tasks together."""
        counts = Counter({name: self._applier.counts[name] for name in ("calls", "refused", "too_late", "batches")})
        counts["events"] = self._intake.counts["events"]
        counts["redis_us"] = round(self._applier.redis_s * 1e6)
        for name, fold in self._applier.folds.items():
            counts[f"counted {name}"] = fold.counts["counted"]
            counts[f"nulls {name}"] = sum(n for what, n in fold.counts.items() if what.startswith("nulls_"))
        return counts

    def _begin(self, place: Place) -> None:
        if place in self._intake.positions:
            return
        views = self._applier.refresh()
        readers = {name: view for name, view in views.items() if view.entries(place)}
        start = min(view.start(place) for view in readers.values())
        if start < self._standing.get(place, (0, 0))[0]:
            # The batch begins behind what is missing now.
            raise DeliveryError(WENT_BACK, where=f"{place[0]}/{place[1]}", got=f"{start}")
        for name in readers:
            self._applier.join(name, place)
        newest = max(view.newest_at_start(place) for view in readers.values() if view.start(place) == start)
        self._intake.begin(place, start, newest)

    def _check(self) -> None:
        if self._applier.lost:
            raise DeliveryError(WENT_BACK, where=", ".join(f"{t}/{p}" for t, p in sorted(self._applier.lost)))


_KEPT: dict[str, _Folding] = {}
"""By the task that it belongs to; at most one, and only what no task is using."""


def _let_go() -> None:
    while _KEPT:
        _KEPT.popitem()[1].close()


atexit.register(_let_go)


class _Headers(NamedTuple):
    """A row as a message, as far as a rejection looks at it."""

    pairs: Any

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return [(pair["key"], pair["value"]) for pair in self.pairs] if self.pairs else None


class _Messages(Sequence[Any]):
    """The rows as messages, made when one is looked at."""

    def __init__(self, headers: pa.ChunkedArray) -> None:
        self._headers = headers

    def __len__(self) -> int:
        return len(self._headers)

    def __getitem__(self, row: Any) -> _Headers:
        return _Headers(self._headers[row].as_py())


def _batch_of(topic: str, table: pa.Table) -> Batch:
    """Rows of Spark's Kafka source, each partition's by ascending offset."""
    table = table.sort_by([("partition", "ascending"), ("offset", "ascending")])
    return Batch(
        topic,
        table["value"].to_pylist(),
        table["key"].to_pylist(),
        table["partition"].to_numpy().astype(np.int64),
        table["offset"].to_numpy().astype(np.int64),
        int64_of(table["timestamp"]),
        _Messages(table["headers"]),
    )
