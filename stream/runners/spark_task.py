"""What a task of the Spark runner does: the rows of some partitions, as Arrow, folded into Redis."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from features.deltas import int64_of
from features.kernel import Kernel
from features.plan import Definitions
from schemas.decode import Batch
from schemas.errors import DeliveryError
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

FOLDED_SCHEMA = "topic string, partition int, end bigint, newest_us bigint, counts string, rejected string"
WENT_BACK = "HEADRACE Redis went back"
"""In the error of a task whose partitions must be placed anew."""
ATTEMPT_S = 60.0
"""So long a task waits for a service that is down; then Spark tries it again."""

Load = Callable[[], Mapping[str, type[Event]]]


class FoldTask:
    """Sent to the executors: definitions and settings, no connection. `at` gives the function for one micro-batch."""

    def __init__(self, definitions: Definitions, load: Load, settings: StreamSettings) -> None:
        self._definitions = definitions
        self._load = load
        self._settings = settings

    def at(
        self, standing: Mapping[Place, tuple[int, int]]
    ) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
        """Folds what comes behind `standing`: for each partition the offset below which all is folded."""
        definitions, load, settings = self._definitions, self._load, self._settings

        def fold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            folding = _Folding(definitions, load(), settings, standing)
            try:
                for batch in batches:
                    folding.take(batch)
                yield from folding.done()
            finally:
                folding.close()

        return fold


class _Folding:
    """One task's run."""

    def __init__(
        self,
        definitions: Definitions,
        events: Mapping[str, type[Event]],
        settings: StreamSettings,
        standing: Mapping[Place, tuple[int, int]],
    ) -> None:
        self._standing = standing
        self._stop = threading.Event()
        self._timer = threading.Timer(ATTEMPT_S, self._stop.set)
        self._timer.daemon = True
        self._timer.start()
        self._streamed = Streamed(definitions, events, admin_client(settings))
        self._rejects = Rejects(settings)
        self._intake = Intake(self._streamed.events, self._rejects, settings.schema_registry)
        self._patience = Patience(self._stop, settings.retry_max_s, self._stop.wait)
        self._kernel = Kernel()
        self._store = Store.open(settings)
        self._applier = Applier(self._streamed.folds(), self._store, self._kernel, self._patience)
        self._counts: Counter[str] = Counter()

    def take(self, rows: pa.RecordBatch) -> None:
        """Folds some rows."""
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
        self._applier.settle()
        self._check()
        self._counts.update({"events": self._intake.counts["events"]})
        for name, fold in self._applier.folds.items():
            self._counts[f"counted {name}"] += fold.counts["counted"]
            self._counts[f"nulls {name}"] += sum(n for what, n in fold.counts.items() if what.startswith("nulls_"))
        self._counts.update({name: self._applier.counts[name] for name in ("calls", "refused", "too_late")})
        moves = [(place, self._intake.standing(place)) for place in self._intake.positions]
        counts = orjson.dumps(self._counts).decode()
        rejected = orjson.dumps({str(reason): n for reason, n in self._rejects.counts.items()}).decode()
        if moves:
            yield pa.RecordBatch.from_pydict(
                {
                    "topic": [place[0] for place, _ in moves],
                    "partition": pa.array([place[1] for place, _ in moves], pa.int32()),
                    "end": pa.array([move.end for _, move in moves], pa.int64()),
                    "newest_us": pa.array([move.newest_us for _, move in moves], pa.int64()),
                    # Of the task as a whole: told once.
                    "counts": [counts, *["{}"] * (len(moves) - 1)],
                    "rejected": [rejected, *["{}"] * (len(moves) - 1)],
                }
            )

    def close(self) -> None:
        self._timer.cancel()
        self._applier.close()
        self._rejects.close()
        self._store.close()
        self._kernel.close()

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
