"""The history of enriched events: what lies before their first deployment, recomputed from the event log. DESIGN §3.

It is written once into the log of the enriched topic, as imported history is (partition −1), and says `offline` in
`<view>_answer`: from then on stream and batch read the same there too.

    offset of a recomputed event = the starts of all partitions before its own + its own offset, imported events last

so that each has one offset, whatever is recomputed when.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from batch.append import Piece, append_once
from batch.catalog import find, open_catalog
from batch.offsets import IMPORTED, offsets_of
from batch.scan import OFFSET, PARTITION, Scanner
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, events_table
from batch.training import EventSource, view_values
from features.deltas import int64_of
from features.plan import Definitions
from features.ranges import Ints
from schemas.enriched import OFFLINE, Deployment, answer_column
from schemas.errors import DataError
from schemas.event import EventSpec, log_schema

DEPLOYMENT = "headrace.deployment"
"""The table's property that holds its topic's Deployment."""


def keep_deployments(settings: BatchSettings, deployments: Mapping[str, Deployment]) -> None:
    """Writes each enriched topic's deployment to its table, where it doesn't stand there yet."""
    catalog = open_catalog(settings)
    for topic, deployment in deployments.items():
        while True:
            table = find(catalog, events_table(topic))
            if table is None or DEPLOYMENT in table.properties:
                break
            try:
                with table.transaction() as transaction:
                    transaction.set_properties({DEPLOYMENT: deployment.to_json().decode()})
            except CommitFailedException:
                continue


class Histories:
    """The histories of all enriched topics of a project, as far as they can be recomputed by now."""

    def __init__(self, definitions: Definitions, settings: BatchSettings) -> None:
        self._definitions = definitions
        self._settings = settings
        self._waiting = [spec for spec in definitions.events.values() if spec.enriched is not None]

    def recompute(self) -> dict[str, int]:
        """Appends what is missing and can be computed; the number of events by topic.

        What the recomputation reads must be landed up to the deployment: until then there is nothing of a topic. What
        was imported since is added; the rest is done once.
        """
        written: dict[str, int] = {}
        for spec in self._waiting:
            history = _History(self._definitions, spec, self._settings)
            if history.is_possible():
                written[str(spec.topic)] = history.append()
        return {topic: count for topic, count in written.items() if count}


class _History:
    def __init__(self, definitions: Definitions, spec: EventSpec, settings: BatchSettings) -> None:
        assert spec.enriched is not None, f"{spec.name} is no enriched event"
        self._spec = spec
        self._enriched = spec.enriched
        self._settings = settings
        self._source = definitions.events[spec.enriched.event]
        self._view = definitions.views[spec.enriched.view]
        self._catalog = open_catalog(settings)
        self._table = find(self._catalog, events_table(str(spec.topic)))

    def is_possible(self) -> bool:
        """Whether all that it reads is landed as far as it must be."""
        deployment = self._deployment()
        if deployment is None:
            return False
        needed = {**deployment.known, deployment.topic: deployment.starts}
        return all(
            self._landed(topic).get(partition, 0) >= end
            for topic, ends in needed.items()
            for partition, end in ends.items()
        )

    def append(self) -> int:
        """The events that are not there yet; how many there were."""
        deployment = self._deployment()
        assert self._table is not None, "there is a table where there is a deployment"
        assert deployment is not None, "it was possible"
        bases, end = self._bases(deployment)
        topic = str(self._spec.topic)
        done = offsets_of(self._table).of(topic).get(IMPORTED, 0)
        source = find(self._catalog, events_table(deployment.topic))
        count = 0
        if source is not None:
            # Imported events come last: the offsets of what is appended only grow.
            for ends in (deployment.starts, {IMPORTED: self._landed(deployment.topic).get(IMPORTED, 0)}):
                count += self._append_rows(source, ends, bases, done)
        if end > offsets_of(self._table).of(topic).get(IMPORTED, -1):
            append_once(self._table, Piece(topic, None, log_schema(self._spec).empty_table(), {}, {IMPORTED: end}))
        return count

    def _append_rows(self, source: Table, ends: Mapping[int, int], bases: Mapping[int, int], done: int) -> int:
        starts = {partition: max(done - bases[partition], 0) for partition in ends}
        ends = {partition: end for partition, end in ends.items() if end > starts[partition]}
        assert self._table is not None, "there is a table where there is a deployment"
        count = 0
        scanner = Scanner(self._settings)
        kernel = scanner.kernel([each.event for each in self._view.sources])
        try:
            reader = scanner.log(log_schema(self._source), source, starts, ends, without_copies=self._source)
            events = EventSource(scanner, {})
            for batch in reader or ():
                rows = pa.Table.from_batches([batch]).cast(log_schema(self._source))
                instants = int64_of(rows[self._source.time])
                values = view_values(
                    self._view, self._enriched.features, rows, instants, kernel, events, self._settings.threads
                )
                offsets = _offsets(rows, bases)
                columns = {name: rows[name] for name in rows.column_names}
                for feature, column in zip(self._enriched.features, values, strict=True):
                    type_name = self._view.feature(feature).type
                    columns[f"{self._view.name}__{feature}"] = column.to_arrow(type_name)
                columns[answer_column(self._view.name)] = pa.array([OFFLINE] * len(rows))
                columns[PARTITION] = pa.array(np.full(len(rows), IMPORTED, np.int32))
                columns[OFFSET] = pa.array(offsets)
                columns[BROKER_TIME] = rows[self._source.time]
                schema = log_schema(self._spec)
                piece = pa.Table.from_arrays([_plain(columns[field.name]) for field in schema], schema=schema)
                last = int(offsets[-1]) + 1
                count += append_once(self._table, Piece(str(self._spec.topic), None, piece, {}, {IMPORTED: last}))
        finally:
            kernel.close()
            scanner.close()
        return count

    def _bases(self, deployment: Deployment) -> tuple[dict[int, int], int]:
        """For each partition of the events' topic the offset of its first event here; and the end of them all."""
        bases: dict[int, int] = {}
        total = 0
        for partition, start in sorted(deployment.starts.items()):
            bases[partition] = total
            total += start
        bases[IMPORTED] = total
        return bases, total + self._landed(deployment.topic).get(IMPORTED, 0)

    def _landed(self, topic: str) -> Mapping[int, int]:
        table = find(self._catalog, events_table(topic))
        return {} if table is None else offsets_of(table).of(topic)

    def _deployment(self) -> Deployment | None:
        if self._table is None or DEPLOYMENT not in self._table.properties:
            return None
        text = self._table.properties[DEPLOYMENT]
        try:
            return Deployment.from_json(text)
        except msgspec.DecodeError as error:
            raise DataError(
                "a table's deployment can't be read", where=".".join(self._table.name()), got=str(error)
            ) from None


def _offsets(rows: pa.Table, bases: Mapping[int, int]) -> Ints:
    partitions = int64_of(rows[PARTITION])
    distinct, index = np.unique(partitions, return_inverse=True)
    moved = np.array([bases[int(partition)] for partition in distinct], np.int64)
    offsets: Ints = int64_of(rows[OFFSET]) + moved[index]
    return offsets


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
