"""Training sets on Spark: events are prepared file by file, shuffled by entity, and read bucket by bucket.

No second implementation of anything: a task runs the same kernel over the same Iceberg files, and a bucket the same
`features.merge.read_records`. Tables cross the shuffle as Arrow's own bytes, so that no type is translated; a bucket's
events must fit into an executor's memory. docs/runners.md says when it is worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import FileScanTask, Table
from pyspark.sql import SparkSession

from batch.catalog import find, open_catalog
from batch.recomputed import is_enriched, recomputed, recomputed_column
from batch.rows import check_rows, instants_us, read_rows
from batch.scan import EVERYTHING, Relation, Scanner, identifier_of, pin_of
from batch.settings import BatchSettings
from batch.training import EventSource, open_kernel, service_plan, since_us, span_of, with_features
from features.finish import Values
from features.kernel import Kernel
from features.merge import read_records
from features.plan import Definitions, ViewPlan
from features.ranges import Ints
from schemas.row import shard_of
from schemas.types import arrow_type

RECOMPUTED = "recomputed?"
"""No feature is called so."""
BUCKET_ROWS = 500_000
"""Events and rows of a bucket, on average: some 100 MB with the states that they are read into."""
FILES_PER_TASK_BYTES = 64 << 20
PARTS = "bucket int, is_rows boolean, payload binary"
VALUES = "payload binary"


def spark_training_set(
    spark: SparkSession,
    definitions: Definitions,
    service: str,
    rows: pa.Table | str | Path | Any,
    settings: BatchSettings,
    *,
    snapshots: Mapping[str, int] | None = None,
    prepare: Callable[[], object] | None = None,
) -> pa.Table:
    """As `batch.training.training_set` with known_at="event", bit for bit.

    `prepare` is run in each task, for definitions whose udfs must be loaded; executors must be able to import it, and
    to read the tables' files.
    """
    plan = service_plan(definitions, service)
    given = check_rows(definitions, plan, read_rows(rows))
    instants = instants_us(given)
    scanner = Scanner(settings)
    kernel = open_kernel(definitions, plan, scanner)
    try:
        values = {}
        marks = {}
        for name, features in definitions.needed(plan).items():
            view = definitions.views[name]
            values[name] = _view(spark, view, features, kernel, given, instants, settings, snapshots or {}, prepare)
            if is_enriched(view):
                marks[recomputed_column(name)] = values[name].pop().to_arrow("bool")
        result = with_features(definitions, plan, given, values, kernel)
        for column, array in marks.items():
            result = result.append_column(column, array)
        return result
    finally:
        kernel.close()
        scanner.close()


def _view(
    spark: SparkSession,
    plan: ViewPlan,
    features: Sequence[str],
    kernel: Kernel,
    rows: pa.Table,
    instants: Ints,
    settings: BatchSettings,
    snapshots: Mapping[str, int],
    prepare: Callable[[], object] | None,
) -> list[Values]:
    """The features' values; of a view over enriched events, behind them, whether they rest on recomputed history."""
    keys = kernel.entity_keys(plan, rows)
    pinned, groups, events = _files(plan, settings, snapshots)
    buckets = max(1, -(-(events + len(rows)) // BUCKET_ROWS), spark.sparkContext.defaultParallelism)
    entities = _bytes(pa.table({"key": keys.unique()}))
    span = span_of(plan, features, instants)
    mark = is_enriched(plan)

    def prepared(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A row names some files of one source; it becomes their events, bucket by bucket."""
        if prepare is not None:
            prepare()
        wanted = _table(entities)["key"]
        for batch in batches:
            for source, paths in zip(*(batch.column(n).to_pylist() for n in (0, 1)), strict=True):
                scanner = _PartScanner(settings, frozenset(paths))
                part = scanner.kernel([plan.sources[source].event])
                try:
                    relations = EventSource(scanner, pinned).relations(plan, span)
                    relations = [each if n == source else None for n, each in enumerate(relations)]
                    records = part.records(plan, relations, keys=wanted)
                finally:
                    part.close()
                    scanner.close()
                yield from _parts(records, buckets, is_rows=False)

    def read(parts: pa.Table) -> pa.Table:
        """A bucket: all events of its entities and the rows that ask about them."""
        if prepare is not None:
            prepare()
        asked = [_table(p) for r, p in zip(*_pairs(parts), strict=True) if r]
        if not asked:
            return pa.table({"payload": pa.array([], pa.binary())})
        found = [_table(p) for r, p in zip(*_pairs(parts), strict=True) if not r]
        records = pa.concat_tables(found).sort_by([(n, "ascending") for n in ("key", "t", "position", "offset")])
        queries = pa.concat_tables(asked).combine_chunks()
        at = queries["instant"].to_numpy()
        values = read_records(plan, records.combine_chunks(), queries["key"].combine_chunks(), at, features)
        columns = {name: each.to_arrow(plan.feature(name).type) for name, each in zip(features, values, strict=True)}
        if mark:
            since = since_us(plan, features, at)
            again = recomputed(plan, records, queries["key"].combine_chunks(), at, since)
            columns[RECOMPUTED] = again.to_arrow("bool")
        return pa.table({"payload": pa.array([_bytes(pa.table({"row": queries["row"], **columns}))], pa.binary())})

    queries = pa.table({"key": keys, "row": np.arange(len(rows)), "instant": instants})
    empty = _bytes(kernel.records(plan, [None] * len(plan.sources)))
    mine = [part for batch in _parts(queries, buckets, is_rows=True) for part in batch.to_pylist()]
    # Every bucket has a table of events, if only one of none: it tells their types.
    mine += [{"bucket": bucket, "is_rows": False, "payload": empty} for bucket in range(buckets)]
    frame = spark.createDataFrame([(p["bucket"], p["is_rows"], bytearray(p["payload"])) for p in mine], PARTS)
    if groups:
        files = spark.createDataFrame(groups, "source int, paths array<string>").repartition(len(groups))
        frame = frame.unionAll(files.mapInArrow(prepared, PARTS))
    answers = frame.repartition(buckets, "bucket").groupBy("bucket").applyInArrow(read, VALUES).collect()
    types = {name: plan.feature(name).type for name in features} | ({RECOMPUTED: "bool"} if mark else {})
    return _arrived([_table(bytes(answer["payload"])) for answer in answers], types, len(rows))


def _files(
    plan: ViewPlan, settings: BatchSettings, snapshots: Mapping[str, int]
) -> tuple[dict[str, int], list[tuple[int, list[str]]], int]:
    """The snapshots that all tasks read, the files of each source in groups, and how many events are in them."""
    catalog = open_catalog(settings)
    pinned = dict(snapshots)
    groups: list[tuple[int, list[str]]] = []
    events = 0
    for number, source in enumerate(plan.sources):
        if source.event.path is not None:
            # Files of the user's own: one task reads them all.
            groups.append((number, []))
            continue
        table = find(catalog, identifier_of(source.event))
        snapshot = None if table is None else table.current_snapshot()
        if table is None or snapshot is None:
            continue
        at = pinned.setdefault(pin_of(source.event), snapshot.snapshot_id)
        files = [task.file for task in table.scan(snapshot_id=at).plan_files()]
        events += sum(file.record_count for file in files)
        if source.event.topic is None:
            groups.append((number, []))
            continue
        group: list[str] = []
        size = 0
        for file in files:
            group.append(file.file_path)
            size += file.file_size_in_bytes
            # Where copies are dropped by id, one may stand in another file: then one task reads them all.
            if size >= FILES_PER_TASK_BYTES and source.event.id is None:
                groups.append((number, group))
                group, size = [], 0
        if group:
            groups.append((number, group))
    return pinned, groups, events


class _PartScanner(Scanner):
    """Reads some files of the tables alone."""

    def __init__(self, settings: BatchSettings, paths: frozenset[str]) -> None:
        super().__init__(settings, threads=1)
        self._paths = paths

    def relation(
        self,
        table: Table,
        schema: pa.Schema,
        row_filter: BooleanExpression = EVERYTHING,
        *,
        snapshot_id: int | None = None,
    ) -> Relation | None:
        tasks: list[FileScanTask] = [
            task
            for task in table.scan(row_filter, snapshot_id=snapshot_id).plan_files()
            if task.file.file_path in self._paths
        ]
        return self.files(table, schema, tasks) if tasks else None


class _Arrived:
    """A feature's values as they came from the executors: what `with_features` asks of Values."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def to_arrow(self, type_name: str) -> pa.Array:
        return self._array


def _arrived(tables: Sequence[pa.Table], types: Mapping[str, str], count: int) -> list[Values]:
    """The rows of all buckets, in the order in which they were asked about; `types` by column."""
    if not tables:
        return [cast(Values, _Arrived(pa.nulls(0, arrow_type(each)))) for each in types.values()]
    together = pa.concat_tables(tables)
    order = np.empty(count, np.int64)
    order[together["row"].to_numpy()] = np.arange(count)
    index = pa.array(order)
    return [cast(Values, _Arrived(together[name].combine_chunks().take(index))) for name in types]


def _parts(table: pa.Table, buckets: int, *, is_rows: bool) -> Iterator[pa.RecordBatch]:
    """The table's rows by bucket. A row without a key is nobody's, and is read in bucket 0: its values are null."""
    encoded = table["key"].combine_chunks().dictionary_encode()
    of_key = np.array([shard_of(key, buckets) for key in encoded.dictionary.to_pylist()] or [0], np.int64)
    bucket = of_key[pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)]
    for number in np.unique(bucket).tolist():
        part = table.filter(pa.array(bucket == number))
        yield pa.RecordBatch.from_pydict(
            {
                "bucket": pa.array([number], pa.int32()),
                "is_rows": pa.array([is_rows]),
                "payload": pa.array([_bytes(part)], pa.binary()),
            }
        )


def _pairs(parts: pa.Table) -> tuple[list[bool], list[bytes]]:
    return parts["is_rows"].to_pylist(), parts["payload"].to_pylist()


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _table(payload: bytes) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(payload)).read_all()
