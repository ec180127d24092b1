"""A view's values at regular instants, as the table `features.<view>`: for analysts, who have no instants of their own.

At each instant every entity has a row that had an event before it. An instant is written once: running again goes on
where it stopped, and adds nothing to what is there. A changed meaning begins a table anew; the old one is renamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from batch.append import commit
from batch.catalog import find, open_catalog
from batch.entities import key_columns
from batch.offsets import Offsets
from batch.scan import Scanner, Span
from batch.settings import BatchSettings
from batch.tables import arrow_columns, ensure_table, features_table
from batch.training import EventSource, view_values
from features.kernel import Kernel
from features.plan import Definitions, ViewPlan
from features.ranges import Ints
from schemas.duration import format_duration
from schemas.errors import RequestError
from schemas.types import arrow_type

INSTANT = "instant"
FINGERPRINT = "headrace.fingerprint"
"""Property of the table: the meaning of its values."""
ROWS_MAX = 2_000_000
"""Rows of one commit, more or less: a file of some 100 MB."""
INSTANTS_MAX = 1_000_000
"""More is a mistake in --every."""


@dataclass(frozen=True)
class MaterializeReport:
    """What a run did: instants that were there before, instants written, and their rows."""

    there_before: int
    written: int
    rows: int


Progress = Callable[[int, int], None]
"""Instants done, instants in all."""


def materialize(
    definitions: Definitions,
    view: str,
    settings: BatchSettings,
    *,
    start: datetime,
    end: datetime,
    every_us: int,
    progress: Progress = lambda _done, _all: None,
) -> MaterializeReport:
    """Writes the view's values at `start`, `start + every`, … up to `end` (inside), naive UTC.

    Raises RequestError for an unknown view and for instants that can't be meant.
    """
    plan = _view(definitions, view)
    instants = _instants(start, end, every_us)
    table = _table(open_catalog(settings), plan)
    scanner = Scanner(settings)
    kernel = scanner.kernel(source.event for source in plan.sources)
    try:
        source = EventSource(scanner, {})
        entities = kernel.entities(plan, source.relations(plan, Span(until_us=int(instants[-1]))))
        missing = instants[~np.isin(instants, _done(scanner, table))]
        step = max(1, ROWS_MAX // max(1, len(entities)))
        rows = 0
        for at in range(0, len(missing), step):
            part = missing[at : at + step]
            progress(len(instants) - len(missing) + at, len(instants))
            rows += _write(scanner, table, part, _values(plan, entities, part, kernel, source, settings))
        progress(len(instants), len(instants))
        return MaterializeReport(len(instants) - len(missing), len(missing), rows)
    finally:
        kernel.close()
        scanner.close()


def _values(
    plan: ViewPlan, entities: pa.Table, instants: Ints, kernel: Kernel, source: EventSource, settings: BatchSettings
) -> pa.Table:
    first = entities["first"].to_numpy()
    known = [np.flatnonzero(first < instant) for instant in instants]
    asked = np.repeat(instants, [len(each) for each in known])
    keys = key_columns(plan, entities["key"].to_pylist())
    rows = keys.take(pa.array(np.concatenate(known) if known else np.zeros(0, np.int64)))
    names = [feature.name for feature in plan.features]
    values = view_values(plan, names, rows, asked, kernel, source, settings.threads)
    columns = {INSTANT: pa.array(asked).cast(pa.timestamp("us"))}
    columns |= {key.name: rows[key.name] for key in plan.keys}
    columns |= {f.name: each.to_arrow(f.type) for f, each in zip(plan.features, values, strict=True)}
    return pa.table(columns).cast(_schema(plan))


def _write(scanner: Scanner, table: Table, instants: Ints, rows: pa.Table) -> int:
    """Appends the rows of instants that aren't there, whoever else writes them at the same time."""
    while len(rows):
        try:
            commit(table, rows, Offsets())
        except CommitFailedException:
            table.refresh()
            there = _done(scanner, table)
            rows = rows.filter(pa.array(~np.isin(rows[INSTANT].cast(pa.int64()).to_numpy(), there)))
            continue
        return len(rows)
    return 0


def _done(scanner: Scanner, table: Table) -> Ints:
    """The instants that the table holds, in µs."""
    source = scanner.relation(table, arrow_columns(table, [INSTANT]))
    if source is None:
        return np.zeros(0, np.int64)
    found = source.table(f"SELECT DISTINCT epoch_us({INSTANT}) AS t FROM files")
    result: Ints = found["t"].to_numpy()
    return result


def _table(catalog: Catalog, plan: ViewPlan) -> Table:
    identifier = features_table(plan.name)
    table = find(catalog, identifier)
    if table is not None and table.properties.get(FINGERPRINT) != plan.fingerprint:
        old = table.properties.get(FINGERPRINT, "unknown")[:8]
        catalog.rename_table(identifier, features_table(f"{plan.name}__{old}"))
    table = ensure_table(catalog, identifier, _schema(plan), INSTANT)
    if FINGERPRINT not in table.properties:
        with table.transaction() as transaction:
            transaction.set_properties({FINGERPRINT: plan.fingerprint})
    return table


def _schema(plan: ViewPlan) -> pa.Schema:
    return pa.schema(
        [
            pa.field(INSTANT, pa.timestamp("us"), nullable=False),
            *(pa.field(key.name, arrow_type(key.type)) for key in plan.keys),
            *(pa.field(feature.name, arrow_type(feature.type)) for feature in plan.features),
        ]
    )


def _instants(start: datetime, end: datetime, every_us: int) -> Ints:
    first, last = (int(np.datetime64(each, "us").astype(np.int64)) for each in (start, end))
    if first > last or every_us <= 0:
        raise RequestError("--from is not after --to, and --every longer than nothing", got=f"{start} to {end}")
    count = (last - first) // every_us + 1
    if count > INSTANTS_MAX:
        raise RequestError(
            f"at most {INSTANTS_MAX:,} instants at once",
            got=f"{count:,} (every {format_duration(every_us)})",
            hint="a longer --every, or a shorter span",
        )
    result: Ints = first + np.arange(count, dtype=np.int64) * every_us
    return result


def _view(definitions: Definitions, name: str) -> ViewPlan:
    if name not in definitions.views:
        known = ", ".join(definitions.views) or "none; run headrace apply"
        raise RequestError("no such view", got=repr(name), hint=f"there are: {known}")
    return definitions.views[name]
