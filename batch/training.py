"""Training sets: the features of a service for past instants, computed from the event log by the one read.

For each view: the instants' entities, their events (planned by Iceberg, prepared and sorted by the kernel), and
`features.merge.read_records` over them: what serving would have answered, had it folded every event by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from batch.arrival import ArrivalTimes
from batch.chunks import BATCH_ROWS, Queries, read_stream
from batch.latest import latest_values
from batch.limited import Limits, read_limited
from batch.recomputed import is_enriched, recomputed, recomputed_column
from batch.rows import check_rows, instants_us, read_rows
from batch.scan import Scanner, Span, pin_of
from batch.settings import BatchSettings
from features.finish import Values
from features.kernel import Kernel, Relation
from features.merge import read_records
from features.plan import Definitions, ServicePlan, Source, ViewPlan
from features.ranges import Ints
from features.service import feature_columns, request_columns
from features.window import bounds_us
from schemas.errors import RequestError
from schemas.event import LOG_COLUMNS
from schemas.row import TIME_MIN_US

KnownAt = Literal["event", "arrival"]


def training_set(
    definitions: Definitions,
    service: str,
    rows: pa.Table | str | Path | Any,
    settings: BatchSettings,
    *,
    known_at: KnownAt = "event",
    snapshots: Mapping[str, int] | None = None,
) -> pa.Table:
    """The rows, in their order and with all their columns, and the service's features behind them.

    `rows` bring the join keys, the request columns and `event_timestamp`. A null key gives nulls. `known_at="event"` is
    what was true at an instant, "arrival" what had reached Kafka by then (slower). `snapshots` pins tables
    (`events.<topic>`) to Iceberg snapshots. Behind the features of a view over enriched events comes a column
    `<view>_recomputed`: the row's values rest on history from before the first deployment. Raises DataError for rows
    that aren't what they must be.
    """
    plan = service_plan(definitions, service)
    given = check_rows(definitions, plan, read_rows(rows))
    return with_service(
        definitions, plan, given, instants_us(given), settings, known_at=known_at, snapshots=snapshots, marked=True
    )


def with_service(
    definitions: Definitions,
    service: ServicePlan,
    rows: pa.Table,
    instants: Ints,
    settings: BatchSettings,
    *,
    known_at: KnownAt = "event",
    snapshots: Mapping[str, int] | None = None,
    marked: bool = False,
) -> pa.Table:
    """Rows that were checked (`check_rows`), with the service's features behind them; `marked`: and recomputed ones."""
    scanner = Scanner(settings)
    kernel = open_kernel(definitions, service, scanner)
    try:
        source = EventSource(scanner, snapshots or {})
        arrivals = ArrivalTimes(scanner, snapshots or {})
        values = {}
        marks: dict[str, pa.Array] = {}
        for name, features in definitions.needed(service).items():
            plan = definitions.views[name]
            limits = arrivals.limits(plan, instants) if known_at == "arrival" else None
            mark = marked and is_enriched(plan)
            values[name] = view_values(
                plan, features, rows, instants, kernel, source, settings.threads, limits, mark=mark
            )
            if mark:
                marks[recomputed_column(name)] = values[name].pop().to_arrow("bool")
        result = with_features(definitions, service, rows, values, kernel)
        for column, array in marks.items():
            result = result.append_column(column, array)
        return result
    finally:
        kernel.close()
        scanner.close()


def service_plan(definitions: Definitions, service: str) -> ServicePlan:
    """The service of that name. Raises RequestError where there is none."""
    if service not in definitions.services:
        known = ", ".join(definitions.services) or "none; run headrace apply"
        raise RequestError("no such service", got=repr(service), hint=f"there are: {known}")
    return definitions.services[service]


def open_kernel(definitions: Definitions, service: ServicePlan, scanner: Scanner) -> Kernel:
    """A kernel that may read all that the service's values are computed from."""
    views = [definitions.views[name] for name in definitions.needed(service)]
    return scanner.kernel(source.event for view in views for source in view.sources)


class EventSource:
    """The events of a view's sources, as the kernel reads them."""

    def __init__(self, scanner: Scanner, snapshots: Mapping[str, int]) -> None:
        self._scanner = scanner
        self._snapshots = snapshots

    def relations(self, plan: ViewPlan, span: Span) -> list[Relation | None]:
        """One relation a source, with the columns that the plan reads; None where nothing is landed."""
        return [self._relation(plan, source, span) for source in plan.sources]

    def _relation(self, plan: ViewPlan, source: Source, span: Span) -> Relation | None:
        spec = source.event
        snapshot_id = None if spec.path is not None else self._snapshots.get(pin_of(spec))
        return self._scanner.events(spec, columns_read(plan, source), span, snapshot_id=snapshot_id)


def view_values(
    plan: ViewPlan,
    features: Sequence[str],
    rows: pa.Table,
    instants: Ints,
    kernel: Kernel,
    source: EventSource,
    threads: int,
    limits: Limits | None = None,
    *,
    mark: bool = False,
) -> list[Values]:
    """Features of one view for rows with its join keys, at one instant each; `limits`: from a part of the log alone.

    `mark`: and behind them whether they rest on recomputed history.
    """
    relations = source.relations(plan, span_of(plan, features, instants))
    if limits is None and not mark:
        latest = latest_values(plan, features, rows, instants, kernel, relations)
        if latest is not None:
            return latest
    queries = Queries(kernel.entity_keys(plan, rows), instants)

    def read(records: pa.Table, keys: pa.Array, instants: Ints, index: Ints) -> list[Values]:
        if limits is None:
            values = read_records(plan, records, keys, instants, features)
        else:
            since = since_us(plan, features, instants)
            values = read_limited(plan, records, keys, instants, limits.take(index), features, since)
        if mark:
            values.append(recomputed(plan, records, keys, instants, since_us(plan, features, instants)))
        return values

    with closing(kernel.record_batches(plan, relations, queries.entities, BATCH_ROWS)) as batches:
        return read_stream(plan, batches, queries, read, len(features) + mark, threads)


def with_features(
    definitions: Definitions,
    service: ServicePlan,
    rows: pa.Table,
    values: Mapping[str, Sequence[Values]],
    kernel: Kernel,
) -> pa.Table:
    """The rows and the service's features, from the values of the views that it needs; derived views are computed."""
    types = {(plan.name, f.name): f.type for plan in definitions.views.values() for f in plan.features}
    needed = definitions.needed(service)
    arrays = {
        view: {name: each.to_arrow(types[view, name]) for name, each in zip(features, values[view], strict=True)}
        for view, features in needed.items()
    }
    for name in (s.view for s in service.selections if s.view in definitions.derived):
        arrays[name] = _derived(definitions, service, name, rows, arrays, kernel)
    columns = feature_columns(definitions, service)
    pairs = [(s.view, feature) for s in service.selections for feature in s.features]
    result = rows
    for column, (view, feature) in zip(columns, pairs, strict=True):
        result = result.append_column(column.name, arrays[view][feature])
    return result


def columns_read(plan: ViewPlan, source: Source) -> list[str]:
    """The columns of an event that the view's computation may read: every one whose name stands in the plan's SQL.

    More than are needed at worst, never less.
    """
    own = msgspec.structs.asdict(plan) | {"sources": [source.mapping], "features": [], "name": "", "tags": {}}
    text = msgspec.json.encode(own | {"owner": "", "description": ""}).decode()
    words = {word.lower() for word in re.findall(r"\w+", text)}
    columns = [column.name for column in source.event.columns if column.name.lower() in words]
    return list(dict.fromkeys([*columns, source.event.time, *(field.name for field in LOG_COLUMNS[:3])]))


def since_us(plan: ViewPlan, features: Sequence[str], instants: Ints) -> Ints:
    """For each instant, how far back the features can look."""
    starts = []
    for name in features:
        feature = plan.feature(name)
        if "ttl_us" in feature.parameters:
            # A latest value that is older than its ttl is null, whatever it is.
            starts.append(instants - int(feature.parameters["ttl_us"]))
            continue
        hop_us = plan.resolutions[feature.window.resolution].hop_us
        starts.append(bounds_us(feature.window, hop_us, instants)[0])
    result: Ints = np.minimum.reduce(starts)
    return result


def span_of(plan: ViewPlan, features: Sequence[str], instants: Ints) -> Span:
    """The events that the features can depend on at these instants."""
    if not len(instants):
        return Span(since_us=0, until_us=0)
    since = int(since_us(plan, features, np.array([instants.min()], np.int64))[0])
    return Span(since if since > TIME_MIN_US else None, int(instants.max()))


def _derived(
    definitions: Definitions,
    service: ServicePlan,
    name: str,
    rows: pa.Table,
    arrays: Mapping[str, Mapping[str, pa.Array]],
    kernel: Kernel,
) -> dict[str, pa.Array]:
    plan = definitions.derived[name]
    inputs: dict[str, pa.Array] = {}
    for view in plan.inputs:
        used = [feature for each, feature in plan.uses if each == view]
        if used:
            columns = [arrays[view][feature] for feature in used]
            inputs[view] = pa.StructArray.from_arrays(columns, names=used)
    inputs |= {column.name: rows[column.name] for column in request_columns(definitions, service)}
    if not inputs:
        inputs["row"] = pa.nulls(len(rows))
    derived = kernel.derive(plan, pa.table(inputs))
    return {feature.name: derived[feature.name].combine_chunks() for feature in plan.features}
