"""Plan -> SQL of DuckDB: the prepared events, and each cell's partial aggregate over them.

    events     one row an event that counts: key, t (int64 µs), position, offset, x0, x1, … (one an input)
    deltas     one row for each (key, tile): key, tile_key, newest, then the columns of each cell

Every user expression stands under TRY, its non-finite doubles become null, its −0.0 becomes 0.0; identifiers of ours
are always quoted. The relations that the SQL reads are named by the caller and bound by `features/kernel.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from features.cells import CLAMP_EXPONENT, MOMENTS4_CLAMP_EXPONENT, MOMENTS_CLAMP_EXPONENT, input_type, is_entries
from features.expression import quote
from features.plan import ELEMENT, EVERY_EVENT, LIFETIME, Cell, CellKind, Input, Resolution, Source, ViewPlan
from schemas.event import Column
from schemas.row import RESOLUTION_SHIFT, TILE_BIAS
from schemas.types import duckdb_type, is_decimal

SOURCE_SHIFT = 1 << 32


def events(plan: ViewPlan, relations: list[str | None], wanted: Wanted | None = None) -> str:
    """The prepared events of all sources that have a relation. Null keys and what `where` refuses are left out.

    Without any relation: the same columns, no row. `wanted`: those alone that a table asks for.
    """
    parts = [
        _events_of_source(plan, number, source, relation, wanted)
        for number, (source, relation) in enumerate(zip(plan.sources, relations, strict=True))
        if relation is not None
    ]
    return "\nUNION ALL\n".join(parts) or _no_events(plan)


class Wanted(NamedTuple):
    """A table that asks for events: of a value of the one join key (`wanted_key`), and where `at_instants` at one
    (`wanted_at`, µs). `key` is then what it calls them: its column `wanted_number`.

    It is joined before anything is computed: of most events nothing has to be.
    """

    table: str
    at_instants: bool


def key_text(keys: tuple[Column, ...]) -> str:
    """The canonical text of an entity's key, as `schemas.row.entity_key` writes it; null where a part is null."""
    texts = [_key_part(key) for key in keys]
    if len(texts) == 1:
        return texts[0]
    return " || ".join(f"strlen({text}) || ':' || {text}" for text in texts)


def value(expression: str, type_name: str) -> str:
    """A user's expression, made safe: null instead of an error, a NaN or an infinity; 0.0 instead of −0.0."""
    tried = f"TRY(CAST(({expression}) AS {duckdb_type(type_name)}))"
    if type_name != "float64":
        return tried
    return f"CASE WHEN isfinite({tried}) THEN {tried} + 0::DOUBLE END"


def shard(key: str, shards: int) -> str:
    """The shard of a key's text, as `schemas.row.shard_of` computes it."""
    return f"((md5_number_upper({key}) & 4294967295) % {shards})::INTEGER"


def deltas(plan: ViewPlan, relation: str, *, counted: bool = False) -> str:
    """Partial aggregates of prepared events (with `ord`, their rank in the order inside an entity).

    Cells of entries are not among them (features/folding.py). `counted` adds the number of `events` of each group, and
    of those whose input n is not null as `valid_x<n>`.
    """
    cells = [(n, cell) for n, cell in enumerate(plan.cells) if not is_entries(cell)]
    also = "max(t) AS newest"
    if counted:
        also += ", count(*) AS events" + "".join(f", count(x{n}) AS valid_x{n}" for n in range(len(plan.inputs)))
    grouped = partials(plan.inputs, cells, f"({tiles(plan, relation)})", "key, tile_key", also)
    return f"SELECT {shard('key', plan.shards)} AS shard, * FROM (\n{grouped})\nORDER BY shard, key, tile_key"


def tiles(plan: ViewPlan, relation: str) -> str:
    """Each prepared event once for each resolution, with its tile's key. A calendar's number stands in `cal<n>`."""
    keys = ", ".join(_tile_key(number, resolution) for number, resolution in enumerate(plan.resolutions))
    return f"SELECT *, unnest([{keys}]) AS tile_key FROM {relation}"


def partials(
    inputs: tuple[Input, ...],
    cells: list[tuple[int, Cell]],
    relation: str,
    group: str,
    also: str = "",
    element: str | None = None,
) -> str:
    """The partial aggregates `c<n>_<part>` of numbered cells over the rows of each group.

    Some cells first need a value of the whole group beside each row: a mean to measure from, the newest time.
    """
    columns = [group, also] if also else [group]
    clamped, beside = [], []
    for number, cell in cells:
        x = input_column(cell)
        operand = Operand(x, f"v{number}", f"m{number}", cell.argument, input_type(inputs, cell, element))
        if cell.kind in BESIDE:
            clamped.append(f"{_clamped(f'{x}::DOUBLE', BESIDE[cell.kind].clamp)} AS {operand.clamped}")
            beside.append(f"{BESIDE[cell.kind].sql(operand)} OVER (PARTITION BY {group}) AS {operand.beside}")
        columns += [f"{sql} AS {quote(f'c{number}_{part}')}" for part, sql in enumerate(SQL[cell.kind](operand))]
    source = relation
    if beside:
        source = f"(\n    SELECT *, {', '.join(beside)}\n    FROM (SELECT *, {', '.join(clamped)} FROM {relation}))"
    listed = ",\n    ".join(columns)
    return f"  SELECT {listed}\n  FROM {source}\n  GROUP BY {group}"


def input_column(cell: Cell) -> str:
    """The column that a cell aggregates; `*` for every event."""
    if cell.input == ELEMENT:
        return "element"
    return "*" if cell.input == EVERY_EVENT else f"x{cell.input}"


def _events_of_source(plan: ViewPlan, number: int, source: Source, relation: str, wanted: Wanted | None) -> str:
    time = "kafka_t" if source.mapping else quote(source.event.time)
    inputs = [f"{value(each.sql, each.type)} AS x{n}" for n, each in enumerate(plan.inputs)]
    columns = [
        f"{key_text(plan.keys) if wanted is None else 'wanted_number'} AS key",
        f"epoch_us({time}) AS t",
        f"({number * SOURCE_SHIFT}::BIGINT + kafka_partition + 1) AS position",
        'kafka_offset AS "offset"',
        *inputs,
    ]
    conditions = [f"{quote(key.name)} IS NOT NULL" for key in plan.keys]
    if plan.where is not None:
        conditions.append(f"TRY({plan.where})")
    listed = ",\n  ".join(columns)
    asked = "" if wanted is None else f"\nJOIN {wanted.table} ON {quote(plan.keys[0].name)} = wanted_key"
    if wanted is not None and wanted.at_instants:
        asked += f" AND epoch_us({time}) = wanted_at"
    return f"SELECT {listed}\nFROM {_renamed(source, relation)}{asked}\nWHERE {' AND '.join(conditions)}"


def _no_events(plan: ViewPlan) -> str:
    inputs = [f"NULL::{duckdb_type(each.type)} AS x{n}" for n, each in enumerate(plan.inputs)]
    columns = ["''::VARCHAR AS key", *(f"0::BIGINT AS {quote(name)}" for name in ("t", "position", "offset")), *inputs]
    return f"SELECT {', '.join(columns)} WHERE FALSE"


def _renamed(source: Source, relation: str) -> str:
    if not source.mapping:
        return relation
    # kafka_… is reserved: no mapped column has such a name.
    ours = f"{quote(source.event.time)} AS kafka_t, kafka_partition, kafka_offset"
    columns = ", ".join(f"TRY({sql}) AS {quote(name)}" for name, sql in source.mapping.items())
    return f"(SELECT {ours}, {columns} FROM {relation})"


def _key_part(key: Column) -> str:
    return quote(key.name) if key.type == "string" else f"{quote(key.name)}::VARCHAR"


def _tile_key(number: int, resolution: Resolution) -> str:
    base = (number << RESOLUTION_SHIFT) + TILE_BIAS
    if resolution.calendar is not None:
        return f"({base} + cal{number})::BIGINT"
    hop_us = resolution.hop_us
    if hop_us == LIFETIME:
        return f"{base}::BIGINT"
    # `//` truncates towards zero; a tile is a floor, also before 1970.
    return f"({base} + (t - ((t % {hop_us}) + {hop_us}) % {hop_us}) // {hop_us})::BIGINT"


class Operand(NamedTuple):
    """What a cell's SQL is made of: the input's column, the cell's argument, the type.

    For cells in BESIDE also columns of the input as a clamped DOUBLE, and of the group's value beside each row.
    """

    x: str
    clamped: str
    beside: str
    argument: int
    type: str


def _clamped(x: str, exponent: int) -> str:
    # least() and greatest() leave nulls out: a null would become the limit.
    limit = f"{2.0**exponent!r}::DOUBLE"
    return f"CASE WHEN {x} IS NOT NULL THEN greatest(least({x}, {limit}), -{limit}) END"


def _sum_int(o: Operand) -> tuple[str, ...]:
    # The sum of a decimal has 38 digits and its scale: in Arrow the same 128 bits as a HUGEINT.
    total = f"coalesce(sum({o.x}), 0)"
    return (total,) if is_decimal(o.type) else (f"{total}::HUGEINT",)


def _sum_fixed(o: Operand) -> tuple[str, ...]:
    # Two exact halves: whole multiples of 2**-22, and the rest in units of 2**-84 (below 2**62, rounded half to even).
    clamped = _clamped(o.x, CLAMP_EXPONENT)
    high = f"trunc(({clamped}) * {2.0**22!r}::DOUBLE)"
    low = f"((({clamped}) - {high} / {2.0**22!r}::DOUBLE) * {2.0**84!r}::DOUBLE)"
    return (f"coalesce(sum({high}::HUGEINT), 0)", f"coalesce(sum({low}::BIGINT), 0)::HUGEINT")


def _moments(powers: int) -> Callable[[Operand], tuple[str, ...]]:
    """Count, the mean that is measured from, sums of powers of the distance from it, min and max."""

    def lower(o: Operand) -> tuple[str, ...]:
        distance = f"({o.clamped} - {o.beside})"
        sums = [f"coalesce(fsum({' * '.join([distance] * power)}), 0)" for power in range(1, powers + 1)]
        return (
            f"count({o.x})",
            f"coalesce(any_value({o.beside}), 0)",
            *sums,
            f"coalesce(min({o.clamped}), 'inf'::DOUBLE)",
            f"coalesce(max({o.clamped}), '-inf'::DOUBLE)",
        )

    return lower


def _decayed(o: Operand) -> tuple[str, ...]:
    weight = f"pow(2.0::DOUBLE, (t - {o.beside})::DOUBLE / {o.argument}::DOUBLE)"
    return (
        f"any_value({o.beside})",
        f"coalesce(fsum({o.clamped} * {weight}), 0)",
        f"coalesce(fsum({weight}) FILTER ({o.x} IS NOT NULL), 0)",
    )


def _least(o: Operand) -> tuple[str, ...]:
    return (f"min({o.x})",)


def _greatest(o: Operand) -> tuple[str, ...]:
    return (f"max({o.x})",)


def _first(o: Operand) -> tuple[str, ...]:
    return (f"min(ord) FILTER ({o.x} IS NOT NULL)",)


def _last(o: Operand) -> tuple[str, ...]:
    return (f"max(ord) FILTER ({o.x} IS NOT NULL)",)


SQL: dict[CellKind, Callable[[Operand], tuple[str, ...]]] = {
    CellKind.COUNT: lambda o: (f"count({o.x})",),
    CellKind.SUM_INT: _sum_int,
    CellKind.SUM_FIXED: _sum_fixed,
    CellKind.MIN_INT: _least,
    CellKind.MAX_INT: _greatest,
    CellKind.MIN_FLOAT: _least,
    CellKind.MAX_FLOAT: _greatest,
    CellKind.MIN_BYTES: _least,
    CellKind.MAX_BYTES: _greatest,
    CellKind.FIRST: _first,
    CellKind.LAST: _last,
    CellKind.FIRST_BYTES: _first,
    CellKind.LAST_BYTES: _last,
    CellKind.MOMENTS: _moments(2),
    CellKind.MOMENTS4: _moments(4),
    CellKind.DECAYED: _decayed,
}
"""Each cell's partial aggregate over an input column: one SQL expression or several."""


class Beside(NamedTuple):
    """What a cell needs beside each row: inputs clamped to ±2**clamp, and an aggregate of the group."""

    clamp: int
    sql: Callable[[Operand], str]


BESIDE: dict[CellKind, Beside] = {
    CellKind.MOMENTS: Beside(MOMENTS_CLAMP_EXPONENT, lambda o: f"favg({o.clamped})"),
    CellKind.MOMENTS4: Beside(MOMENTS4_CLAMP_EXPONENT, lambda o: f"favg({o.clamped})"),
    CellKind.DECAYED: Beside(MOMENTS_CLAMP_EXPONENT, lambda o: f"max(t) FILTER ({o.x} IS NOT NULL)"),
}
"""Cells whose partial aggregate needs an aggregate of its group beside each row."""
