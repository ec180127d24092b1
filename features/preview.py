"""Declarations tried on a frame, in process: no Kafka, Redis, Iceberg or server; the kernel and the one read alone.

    airport_delays.preview(flights)                      every airport's features just after its newest event
    airport_delays.preview(flights, at="2013-07-01")     … at that instant
    late_arrival.preview(rows, {Flight: flights})        a training set in small: `rows` has an event_timestamp

Frames are pandas, Polars or Arrow; the answer is what the first one was. Events stand in the order of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError
from features.finish import Values
from features.kernel import Kernel
from features.merge import read_records
from features.plan import Definitions, DerivedPlan, ServicePlan, ViewPlan
from features.ranges import Ints
from schemas.event import Event, EventSpec, log_schema
from schemas.types import arrow_type

Frame: TypeAlias = Any
"""A pandas or Polars DataFrame, or a pyarrow Table."""
Events: TypeAlias = Frame | Mapping[type[Event] | str, Frame]
"""A frame of the one event type that is read, or frames by event type (or its name)."""
TIMESTAMP = "event_timestamp"


def preview_view(plan: ViewPlan, events: Events, at: datetime | str | None = None) -> Frame:
    """The join keys of every entity in `events`, `event_timestamp`, and the view's features at that instant.

    Without `at`, the instant is one microsecond after the newest event. Raises DataError for frames that do not fit.
    """
    specs = [source.event for source in plan.sources]
    tables = _tables(specs, events)
    kernel = Kernel()
    try:
        records = kernel.records(plan, [tables[spec.name] for spec in specs])
        keys = records["key"].combine_chunks().unique()
        newest = pc.max(records["t"]).as_py()
        instant = _instant_us(at) if at is not None else (0 if newest is None else newest + 1)
        instants = np.full(len(keys), instant, np.int64)
        names = [feature.name for feature in plan.features]
        values = read_records(plan, records, keys, instants, names)
    finally:
        kernel.close()
    columns = _key_columns(plan, keys) | {TIMESTAMP: pa.array(instants).view(pa.timestamp("us"))}
    columns |= {f.name: each.to_arrow(f.type) for f, each in zip(plan.features, values, strict=True)}
    return _like(_first(events), pa.table(columns))


def preview_service(
    service: ServicePlan,
    views: Mapping[str, ViewPlan],
    derived: Mapping[str, DerivedPlan],
    rows: Frame,
    events: Events,
) -> Frame:
    """`rows` with a column `view__feature` for each feature of the service, at each row's event_timestamp.

    Raises DataError where a join key, a request column or the events of a view are missing.
    """
    definitions = Definitions(
        project="preview", events={}, entities={}, views=dict(views), derived=dict(derived), services={}
    )
    asked = _to_arrow(rows)
    instants = _column(asked, TIMESTAMP, pa.timestamp("us")).view(pa.int64()).to_numpy(zero_copy_only=False)
    needed = definitions.needed(service)
    specs = [source.event for view in needed for source in views[view].sources]
    tables = _tables(specs, events)
    kernel = Kernel()
    try:
        arrays: dict[str, dict[str, pa.Array]] = {
            view: _view_arrays(kernel, views[view], names, asked, instants, tables) for view, names in needed.items()
        }
        for selection in service.selections:
            if selection.view in derived:
                arrays[selection.view] = _derived_arrays(kernel, derived[selection.view], asked, arrays)
    finally:
        kernel.close()
    for selection in service.selections:
        for feature in selection.features:
            asked = asked.append_column(f"{selection.view}__{feature}", arrays[selection.view][feature])
    return _like(rows, asked)


def _view_arrays(
    kernel: Kernel,
    plan: ViewPlan,
    names: Sequence[str],
    asked: pa.Table,
    instants: Ints,
    tables: Mapping[str, pa.Table],
) -> dict[str, pa.Array]:
    keys = pa.table({key.name: _column(asked, key.name, arrow_type(key.type)) for key in plan.keys})
    records = kernel.records(plan, [tables[source.event.name] for source in plan.sources])
    values: list[Values] = read_records(plan, records, kernel.entity_keys(plan, keys), instants, names)
    return {name: each.to_arrow(plan.feature(name).type) for name, each in zip(names, values, strict=True)}


def _derived_arrays(
    kernel: Kernel, plan: DerivedPlan, asked: pa.Table, arrays: Mapping[str, Mapping[str, pa.Array]]
) -> dict[str, pa.Array]:
    inputs: dict[str, pa.Array] = {"preview_row": pa.nulls(len(asked))}
    for view in plan.inputs:
        used = [feature for each, feature in plan.uses if each == view]
        if used:
            inputs[view] = pa.StructArray.from_arrays([arrays[view][name] for name in used], names=used)
    inputs |= {column.name: _column(asked, column.name, arrow_type(column.type)) for column in plan.request}
    table = kernel.derive(plan, pa.table(inputs))
    return {feature.name: table[feature.name].combine_chunks() for feature in plan.features}


def _tables(specs: Sequence[EventSpec], events: Events) -> dict[str, pa.Table]:
    """For each event type its frame as the event log would hold it."""
    wanted = {spec.name: spec for spec in specs}
    if not isinstance(events, Mapping):
        if len(wanted) != 1:
            raise DataError(
                "several event types are read",
                got="one frame",
                hint=f"give a frame for each: {{{', '.join(f'{name}: …' for name in wanted)}}}",
            )
        return {name: _log_table(spec, events) for name, spec in wanted.items()}
    named = {key if isinstance(key, str) else key.__name__: frame for key, frame in events.items()}
    missing = [name for name in wanted if name not in named]
    if missing:
        raise DataError("events are missing", got=", ".join(named), hint=f"give frames of {', '.join(missing)} too")
    return {name: _log_table(spec, named[name]) for name, spec in wanted.items()}


def _log_table(spec: EventSpec, frame: Frame) -> pa.Table:
    table = _to_arrow(frame)
    columns = {}
    for column in spec.columns:
        if column.name not in table.column_names and column.nullable:
            columns[column.name] = pa.nulls(len(table), arrow_type(column.type))
        else:
            columns[column.name] = _column(table, column.name, arrow_type(column.type))
        if not column.nullable and columns[column.name].null_count:
            raise DataError(
                f"{spec.name}.{column.name} may not be null", got=f"{columns[column.name].null_count} nulls"
            )
    count = len(table)
    log = {
        "kafka_partition": pa.array(np.zeros(count, np.int32)),
        "kafka_offset": pa.array(np.arange(count)),
        "kafka_timestamp": columns[spec.time],
        "kafka_key": pa.nulls(count, pa.binary()),
    }
    return pa.table(columns | log, log_schema(spec))


def _column(table: pa.Table, name: str, type_: pa.DataType) -> pa.Array:
    if name not in table.column_names:
        raise DataError("a column is missing", got=", ".join(table.column_names), hint=f"add {name!r}")
    column = table[name].combine_chunks()
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.timestamp(column.type.unit))
    try:
        return column.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column {name!r} does not fit", got=str(column.type), hint=f"{type_}: {error}") from None


def _to_arrow(frame: Frame) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if hasattr(frame, "to_arrow"):
        return _plain_strings(frame.to_arrow())
    if hasattr(frame, "iloc"):
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    raise DataError(
        "a preview takes a pandas, Polars or Arrow frame", got=type(frame).__name__, hint="pandas.DataFrame([…])"
    )


def _plain_strings(table: pa.Table) -> pa.Table:
    """Polars' text, whose offsets are 64 bits wide, as everybody else's."""
    fields = [f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _like(frame: Frame, table: pa.Table) -> Frame:
    """The answer in the kind of frame that was given."""
    if hasattr(frame, "iloc"):
        return table.to_pandas()
    if hasattr(frame, "to_arrow") and not isinstance(frame, pa.Table):
        return type(frame)(table)
    return table


def _first(events: Events) -> Frame:
    return next(iter(events.values())) if isinstance(events, Mapping) else events


def _instant_us(at: datetime | str) -> int:
    """Without an offset: UTC."""
    instant = datetime.fromisoformat(at) if isinstance(at, str) else at
    utc = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return int(np.datetime64(utc.replace(tzinfo=None), "us").astype(np.int64))


def _key_columns(plan: ViewPlan, keys: pa.Array) -> dict[str, pa.Array]:
    """The join keys that an entity key's text is made of (schemas/row.py)."""
    texts = [_parts(key) if len(plan.keys) > 1 else [key] for key in keys.to_pylist()]
    return {
        key.name: pa.array([parts[n] for parts in texts], pa.string()).cast(arrow_type(key.type))
        for n, key in enumerate(plan.keys)
    }


def _parts(key: str) -> list[str]:
    rest, parts = key.encode(), []
    while rest:
        length, _, rest = rest.partition(b":")
        parts.append(rest[: int(length)].decode())
        rest = rest[int(length) :]
    return parts
