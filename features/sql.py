"""Plan -> SQL of DuckDB: the prepared events, and each cell's partial aggregate over them.

    events     one row an event that counts: key, t (int64 µs), position, offset, x0, x1, … (one an input)
    deltas     one row for each (key, tile): key, tile_key, newest, then the columns of each cell

Every user expression stands under TRY, its non-finite doubles become null, its −0.0 becomes 0.0; identifiers of ours
are always quoted. The relations that the SQL reads are named by the caller and bound by `features/kernel.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from features.cells import CLAMP_EXPONENT, MOMENTS_CLAMP_EXPONENT
from features.expression import quote
from features.plan import LIFETIME, Cell, CellKind, Source, ViewPlan
from schemas.event import Column
from schemas.row import RESOLUTION_SHIFT, TILE_BIAS
from schemas.types import duckdb_type

SOURCE_SHIFT = 1 << 32


def events(plan: ViewPlan, relations: list[str | None]) -> str:
    """The prepared events of all sources that have a relation. Null keys and what `where` refuses are left out.

    Without any relation: the same columns, no row.
    """
    parts = [
        _events_of_source(plan, number, source, relation)
        for number, (source, relation) in enumerate(zip(plan.sources, relations, strict=True))
        if relation is not None
    ]
    return "\nUNION ALL\n".join(parts) or _no_events(plan)


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


def deltas(plan: ViewPlan, relation: str) -> str:
    """Partial aggregates of prepared events (with `ord`, their rank in the order inside an entity)."""
    cells = [
        f"{sql} AS {quote(f'c{n}_{m}')}" for n, cell in enumerate(plan.cells) for m, sql in enumerate(_lower(cell))
    ]
    tiles = ", ".join(_tile_key(number, r.hop_us) for number, r in enumerate(plan.resolutions))
    columns = ", ".join(["key", "tile_key", "max(t) AS newest", *cells])
    return (
        f"SELECT {shard('key', plan.shards)} AS shard, * FROM (\n"
        f"  SELECT {columns}\n"
        f"  FROM (SELECT *, unnest([{tiles}]) AS tile_key FROM {relation})\n"
        f"  GROUP BY key, tile_key)\n"
        f"ORDER BY shard, key, tile_key"
    )


def _events_of_source(plan: ViewPlan, number: int, source: Source, relation: str) -> str:
    time = quote(source.event.time)
    inputs = [f"{value(each.sql, each.type)} AS x{n}" for n, each in enumerate(plan.inputs)]
    columns = [
        f"{key_text(plan.keys)} AS key",
        f"epoch_us({time}) AS t",
        f"({number * SOURCE_SHIFT}::BIGINT + kafka_partition + 1) AS position",
        'kafka_offset AS "offset"',
        *inputs,
    ]
    conditions = [f"{quote(key.name)} IS NOT NULL" for key in plan.keys]
    if plan.where is not None:
        conditions.append(f"TRY({plan.where})")
    return f"SELECT {', '.join(columns)}\nFROM {_renamed(source, relation)}\nWHERE {' AND '.join(conditions)}"


def _no_events(plan: ViewPlan) -> str:
    inputs = [f"NULL::{duckdb_type(each.type)} AS x{n}" for n, each in enumerate(plan.inputs)]
    columns = ["''::VARCHAR AS key", *(f"0::BIGINT AS {quote(name)}" for name in ("t", "position", "offset")), *inputs]
    return f"SELECT {', '.join(columns)} WHERE FALSE"


def _renamed(source: Source, relation: str) -> str:
    if not source.mapping:
        return relation
    ours = f"{quote(source.event.time)}, kafka_partition, kafka_offset"
    columns = ", ".join(f"TRY({sql}) AS {quote(name)}" for name, sql in source.mapping.items())
    return f"(SELECT {ours}, {columns} FROM {relation})"


def _key_part(key: Column) -> str:
    return quote(key.name) if key.type == "string" else f"{quote(key.name)}::VARCHAR"


def _tile_key(resolution: int, hop_us: int) -> str:
    base = (resolution << RESOLUTION_SHIFT) + TILE_BIAS
    if hop_us == LIFETIME:
        return f"{base}::BIGINT"
    # `//` truncates towards zero; a tile is a floor, also before 1970.
    return f"({base} + (t - ((t % {hop_us}) + {hop_us}) % {hop_us}) // {hop_us})::BIGINT"


def _lower(cell: Cell) -> tuple[str, ...]:
    return SQL[cell.kind]("*" if cell.input < 0 else f"x{cell.input}")


def _clamped(x: str, exponent: int) -> str:
    # least() and greatest() leave nulls out: a null would become the limit.
    limit = f"{2.0**exponent!r}::DOUBLE"
    return f"CASE WHEN {x} IS NOT NULL THEN greatest(least({x}, {limit}), -{limit}) END"


def _sum_fixed(x: str) -> tuple[str, ...]:
    # Two exact halves: whole multiples of 2**-22, and the rest in units of 2**-84 (below 2**62, rounded half to even).
    clamped = _clamped(x, CLAMP_EXPONENT)
    high = f"trunc(({clamped}) * {2.0**22!r}::DOUBLE)"
    low = f"((({clamped}) - {high} / {2.0**22!r}::DOUBLE) * {2.0**84!r}::DOUBLE)"
    return (f"coalesce(sum({high}::HUGEINT), 0)", f"coalesce(sum({low}::BIGINT), 0)::HUGEINT")


def _moments(x: str) -> tuple[str, ...]:
    v = _clamped(f"{x}::DOUBLE", MOMENTS_CLAMP_EXPONENT)
    return (
        f"count({x})",
        f"coalesce(avg({v}), 0)",
        f"coalesce(var_pop({v}) * count({x}), 0)",
        f"coalesce(min({v}), 'inf'::DOUBLE)",
        f"coalesce(max({v}), '-inf'::DOUBLE)",
    )


SQL: dict[CellKind, Callable[[str], tuple[str, ...]]] = {
    CellKind.COUNT: lambda x: (f"count({x})",),
    CellKind.SUM_INT: lambda x: (f"coalesce(sum({x}), 0)::HUGEINT",),
    CellKind.SUM_FIXED: _sum_fixed,
    CellKind.MIN_INT: lambda x: (f"min({x})",),
    CellKind.MAX_INT: lambda x: (f"max({x})",),
    CellKind.MIN_FLOAT: lambda x: (f"min({x})",),
    CellKind.MAX_FLOAT: lambda x: (f"max({x})",),
    CellKind.MIN_BYTES: lambda x: (f"min({x})",),
    CellKind.MAX_BYTES: lambda x: (f"max({x})",),
    CellKind.FIRST: lambda x: (f"min(ord) FILTER ({x} IS NOT NULL)",),
    CellKind.LAST: lambda x: (f"max(ord) FILTER ({x} IS NOT NULL)",),
    CellKind.FIRST_BYTES: lambda x: (f"min(ord) FILTER ({x} IS NOT NULL)",),
    CellKind.LAST_BYTES: lambda x: (f"max(ord) FILTER ({x} IS NOT NULL)",),
    CellKind.MOMENTS: _moments,
}
"""Each cell's partial aggregate over an input column: one SQL expression or several."""
