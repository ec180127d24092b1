"""The proof: logged vectors, computed again offline (DESIGN §5).

Each vector is computed over exactly the events below the checkpoints that it was read from: a difference there is a
defect, so there must be none. And over everything that is known by now: what differs there is what lag (the event had
arrived, but was not folded yet) and lateness (it arrived afterwards) cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.arrival import WITHOUT_LIMIT, ArrivalTimes
from batch.catalog import find
from batch.compare import Bools, differs, inexact_features
from batch.given_log import GivenLog
from batch.limited import Limit, Limits, position, read_limited
from batch.offsets import IMPORTED, offsets_of
from batch.rows import instants_us
from batch.scan import Scanner, identifier_of, pin_of
from batch.settings import BatchSettings
from batch.tables import arrow_columns, served_table
from batch.training import EventSource, open_kernel, service_plan, since_us, span_of, with_features
from batch.verified import EXAMPLES_MAX, Cause, Difference, VerifyReport, write_result
from features.finish import Values
from features.kernel import Kernel
from features.merge import read_records
from features.plan import Definitions, ServicePlan
from features.ranges import Ints
from features.service import feature_columns, join_key_columns, request_columns

Progress = Callable[[VerifyReport], None]
Logged = Mapping[str, Sequence[Sequence[Any]]]
"""The checkpoints that a vector was read from, as features/served.py has them."""


def verify(
    definitions: Definitions, service: str, settings: BatchSettings, *, progress: Progress = lambda _: None
) -> VerifyReport:
    """Computes every logged vector of the service again and compares; writes what differs to `verified.<service>`.

    Raises RequestError where there is no such service.
    """
    plan = service_plan(definitions, service)
    scanner = Scanner(settings)
    kernel = open_kernel(definitions, plan, scanner)
    try:
        run = _Run(definitions, plan, settings, scanner, kernel)
        for served in _served(scanner, service):
            run.check(served)
            progress(run.report)
        write_result(settings, run.report, run.differences)
        return run.report
    finally:
        kernel.close()
        scanner.close()


class _Run:
    def __init__(
        self,
        definitions: Definitions,
        service: ServicePlan,
        settings: BatchSettings,
        scanner: Scanner,
        kernel: Kernel,
    ) -> None:
        self._definitions = definitions
        self._service = service
        self._kernel = kernel
        self._needed = definitions.needed(service)
        self._columns = feature_columns(definitions, service)
        self._pairs = [(s.view, feature) for s in service.selections for feature in s.features]
        self._inexact = inexact_features(definitions, service)
        self._snapshots, self._landed = _newest(definitions, self._needed, scanner)
        self._contents = _contents(definitions, self._needed, settings)
        self._source = EventSource(scanner, self._snapshots)
        self._arrivals = ArrivalTimes(scanner, self._snapshots)
        within = [c.name for c, pair in zip(self._columns, self._pairs, strict=True) if pair in self._inexact]
        self.report = VerifyReport(service.name, within_tolerance=within)
        self.differences: list[Difference] = []

    def check(self, served: pa.Table) -> None:
        logged = [json.loads(text) for text in served["checkpoints"].to_pylist()]
        checkpoints = [_limits(each) for each in logged]
        fingerprints = [json.loads(text) for text in served["fingerprints"].to_pylist()]
        ready = np.array([self._is_landed(each) for each in checkpoints], np.bool_)
        self.report.pending += int((~ready).sum())
        index = np.flatnonzero(ready)
        if not len(index):
            return
        served = served.take(pa.array(index))
        checkpoints = [checkpoints[n] for n in index]
        same_views = self._same_views([fingerprints[n] for n in index], [logged[n] for n in index])
        self._compare(served, checkpoints, self._comparable(served, same_views))

    def _compare(self, served: pa.Table, checkpoints: list[dict[str, Limit]], comparable: Mapping[str, Bools]) -> None:
        columns = join_key_columns(self._definitions, self._service)
        columns += request_columns(self._definitions, self._service)
        rows = served.select([column.name for column in columns])
        instants = instants_us(served, "instant")
        logged = instants_us(served, "kafka_timestamp")
        exact: dict[str, list[Values]] = {}
        by_then: dict[str, list[Values]] = {}
        by_now: dict[str, list[Values]] = {}
        for name, features in self._needed.items():
            plan = self._definitions.views[name]
            keys = self._kernel.entity_keys(plan, rows)
            relations = self._source.relations(plan, span_of(plan, features, instants))
            records = self._kernel.records(plan, relations, keys=keys.unique())
            since = since_us(plan, features, instants)
            folded = Limits.from_each([each.get(name, {}) for each in checkpoints])
            arrived = self._arrivals.limits(plan, logged)
            exact[name] = read_limited(plan, records, keys, instants, folded, features, since)
            by_then[name] = read_limited(plan, records, keys, instants, arrived, features, since)
            by_now[name] = read_records(plan, records, keys, instants, features)
        tables = [
            with_features(self._definitions, self._service, rows, each, self._kernel)
            for each in (exact, by_then, by_now)
        ]
        self._judge(served, tables[0], tables[1], tables[2], comparable)

    def _judge(
        self, served: pa.Table, exact: pa.Table, by_then: pa.Table, by_now: pa.Table, comparable: Mapping[str, Bools]
    ) -> None:
        count = len(served)
        wrong, outdated = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for column, pair in zip(self._columns, self._pairs, strict=True):
            values = served[column.name].combine_chunks()
            bitwise = pair not in self._inexact
            computed, then, now = (_like(each[column.name], values) for each in (exact, by_then, by_now))
            same_meaning = comparable[column.name]
            defect = same_meaning & differs(values, computed, bitwise)
            changed = same_meaning & ~defect & differs(values, now, bitwise)
            lagged = changed & differs(values, then, bitwise)
            wrong |= defect
            outdated |= changed | defect
            self._note(served, column.name, Cause.DEFECT, np.flatnonzero(defect), computed)
            self._note(served, column.name, Cause.LAG, np.flatnonzero(lagged), now)
            self._note(served, column.name, Cause.LATE, np.flatnonzero(changed & ~lagged), now)
            self._count(Cause.DEFINITION, int((~same_meaning).sum()))
        compared = np.logical_or.reduce(list(comparable.values()))
        self.report.compared += int(compared.sum())
        self.report.equal += int((compared & ~wrong).sum())
        self.report.known_now_equal += int((compared & ~outdated).sum())

    def _note(self, served: pa.Table, feature: str, cause: Cause, index: Ints, computed: pa.Array) -> None:
        self._count(cause, len(index))
        keys = [column.name for column in join_key_columns(self._definitions, self._service)]
        rows, values = served.take(pa.array(index)).to_pylist(), computed.take(pa.array(index)).to_pylist()
        for row, value in zip(rows, values, strict=True):
            difference = Difference(
                cause=cause,
                feature=feature,
                partition=row["kafka_partition"],
                offset=row["kafka_offset"],
                instant=row["instant"],
                keys={key: row[key] for key in keys},
                served=row[feature],
                computed=value,
            )
            self.differences.append(difference)
            if len(self.report.examples) < EXAMPLES_MAX:
                self.report.examples.append(difference)

    def _count(self, cause: Cause, values: int) -> None:
        if values:
            self.report.by_cause[cause] = self.report.by_cause.get(cause, 0) + values

    def _is_landed(self, checkpoints: Mapping[str, Limit]) -> bool:
        for view, limit in checkpoints.items():
            landed = self._landed.get(view)
            if landed is not None and any(offset > landed.get(place, 0) for place, offset in limit.items()):
                return False
        return True

    def _comparable(self, served: pa.Table, same_views: Mapping[str, Bools]) -> dict[str, Bools]:
        """For each column, which vectors were served with it, and with its meaning of today."""
        texts = served["features"].to_pylist() if "features" in served.column_names else [None] * len(served)
        had = {text: None if text is None else set(json.loads(text)) for text in set(texts)}
        names = [had[text] for text in texts]
        return {
            column.name: same_views[view] & np.array([each is None or column.name in each for each in names], np.bool_)
            for column, (view, _) in zip(self._columns, self._pairs, strict=True)
        }

    def _same_views(self, fingerprints: Sequence[Mapping[str, str]], logged: Sequence[Logged]) -> dict[str, Bools]:
        """For each view of the service, which vectors were computed with its meaning, and its tables, of today."""
        plans = self._definitions.views
        same = {
            view: np.array([each.get(view) == plans[view].fingerprint for each in fingerprints], np.bool_)
            for view in self._needed
        }
        for view, contents in self._contents.items():
            same[view] &= np.array(
                [contents.items() <= _given(each.get(view, ())).items() for each in logged], np.bool_
            )
        for selection in self._service.selections:
            if selection.view in self._definitions.derived:
                inputs = {view for view, _ in self._definitions.derived[selection.view].uses}
                own = self._definitions.derived[selection.view].fingerprint
                unchanged = np.array([each.get(selection.view) == own for each in fingerprints], np.bool_)
                same[selection.view] = np.logical_and.reduce([unchanged, *(same[view] for view in inputs)])
        return same


def _served(scanner: Scanner, service: str) -> Iterator[pa.Table]:
    table = find(scanner.catalog, served_table(service))
    if table is None or table.current_snapshot() is None:
        return
    source = scanner.relation(table, arrow_columns(table))
    if source is not None:
        for batch in source.reader("SELECT * FROM files"):
            yield pa.Table.from_batches([batch])


def _newest(
    definitions: Definitions, views: Mapping[str, tuple[str, ...]], scanner: Scanner
) -> tuple[dict[str, int], dict[str, Limit]]:
    """The snapshots that a whole run reads, and for each view up to which offsets they hold its sources."""
    snapshots: dict[str, int] = {}
    landed: dict[str, Limit] = {}
    for view in views:
        held: dict[int, int] = {}
        for number, source in enumerate(definitions.views[view].sources):
            log = source.event.topic
            if log is None:
                # All of it is there; whether it is what was folded, its content tells.
                held[position(number, IMPORTED)] = WITHOUT_LIMIT
                continue
            table = find(scanner.catalog, identifier_of(source.event))
            snapshot = None if table is None else table.current_snapshot()
            if table is not None and snapshot is not None:
                snapshots[pin_of(source.event)] = snapshot.snapshot_id
                offsets = offsets_of(table, snapshot.snapshot_id).of(log)
                held |= {position(number, partition): offset for partition, offset in offsets.items()}
        landed[view] = held
    return snapshots, landed


def _contents(
    definitions: Definitions, views: Mapping[str, tuple[str, ...]], settings: BatchSettings
) -> dict[str, dict[int, str]]:
    """For each view over tables or files what tells their content of today, by source."""
    contents: dict[str, dict[int, str]] = {}
    for view in views:
        for number, source in enumerate(definitions.views[view].sources):
            if source.event.topic is None:
                contents.setdefault(view, {})[number] = GivenLog(settings, source.event).identity.hex()
    return contents


def _given(entries: Sequence[Sequence[Any]]) -> dict[int, str]:
    """What told the content of tables and files when a vector was served, by source."""
    return {source: content[0] for source, _, _, *content in entries if content}


def _limits(logged: Logged) -> dict[str, Limit]:
    return {
        view: {position(source, partition): offset for source, partition, offset, *_ in entries}
        for view, entries in logged.items()
    }


def _like(column: pa.ChunkedArray, values: pa.Array) -> pa.Array:
    return pc.cast(column.combine_chunks(), values.type)
