"""An Arrow table for people."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace.terminal.output import print_table, say

BYTES_SHOWN_MAX = 60


def print_arrow(table: pa.Table, rows_max: int | None = None) -> None:
    """The rows, numbers to the right, null as an empty cell; beyond `rows_max` it says how many more there are."""
    shown = table if rows_max is None else table.slice(0, rows_max)
    names = table.column_names
    columns = [[_cell(value) for value in column.to_pylist()] for column in shown.columns]
    numbers = [name for name, field in zip(names, table.schema, strict=True) if _is_number(field.type)]
    print_table(names, list(zip(*columns, strict=True)), right=numbers)
    if len(shown) < len(table):
        say(f"… and {len(table) - len(shown):,} more rows: add a LIMIT, or `headrace sql QUERY --out FILE`")


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _cell(value: Any) -> str | None:
    if isinstance(value, bytes):
        text = value[:BYTES_SHOWN_MAX].decode(errors="backslashreplace")
        return f"{text}…" if len(value) > BYTES_SHOWN_MAX else text
    return None if value is None else str(value)
