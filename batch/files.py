"""Files of history as messages: Parquet, CSV and JSON, row by row in the JSON that a producer would have sent."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from schemas.errors import DataError
from schemas.event import EventSpec

ROWS_MAX = 50_000
"""Rows in memory at once."""
JSON_BYTES_MAX = 1 << 30
"""A JSON array is read whole; beyond this, one object a line is the form to use."""


def messages(path: Path, spec: EventSpec) -> Iterator[list[bytes]]:
    """The rows of a file as JSON, in its order. Raises DataError for an ending that isn't known or a broken file."""
    readers: dict[str, Callable[[Path, EventSpec], Iterator[list[bytes]]]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".json": _json,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
    }
    if path.suffix.lower() not in readers:
        raise DataError("history comes as .parquet, .csv, .json or .jsonl", got=str(path))
    try:
        yield from readers[path.suffix.lower()](path, spec)
    except (OSError, pa.ArrowException, orjson.JSONDecodeError) as error:
        raise DataError("the file can't be read", where=str(path), got=str(error).split("\n", 1)[0]) from error


def _parquet(path: Path, spec: EventSpec) -> Iterator[list[bytes]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_MAX):
            yield [_dumps(row) for row in batch.to_pylist()]


def _csv(path: Path, spec: EventSpec) -> Iterator[list[bytes]]:
    """Everything is read as text and turned into what the event's column is; an empty field is null."""
    with pyarrow.csv.open_csv(path) as sample:
        names = sample.schema.names
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    types = {column.name: column.type for column in spec.columns}
    with pyarrow.csv.open_csv(path, convert_options=convert) as reader:
        for batch in reader:
            columns = {
                name: [_from_text(text, types.get(name, "string")) for text in column.to_pylist()]
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            rows = zip(*columns.values(), strict=True)
            yield [_dumps(dict(zip(columns, row, strict=True))) for row in rows]


def _json(path: Path, spec: EventSpec) -> Iterator[list[bytes]]:
    """One array of objects, or one object a line."""
    with path.open("rb") as file:
        first = file.read(1024).lstrip()[:1]
    if first != b"[":
        yield from _json_lines(path, spec)
        return
    if path.stat().st_size > JSON_BYTES_MAX:
        raise DataError(
            "a JSON array of that size isn't read",
            where=str(path),
            got=f"{path.stat().st_size} bytes",
            hint="use .jsonl",
        )
    rows = orjson.loads(path.read_bytes())
    for start in range(0, len(rows), ROWS_MAX):
        yield [orjson.dumps(row) for row in rows[start : start + ROWS_MAX]]


def _json_lines(path: Path, spec: EventSpec) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            if stripped := line.strip():
                lines.append(stripped)
            if len(lines) >= ROWS_MAX:
                yield lines
                lines = []
    if lines:
        yield lines


def _from_text(text: str | None, type_name: str) -> Any:
    """A CSV field as its column's type; text that isn't one stays text, and the schema says so."""
    if text is None or type_name not in _PARSERS:
        return text
    try:
        return _PARSERS[type_name](text)
    except (ValueError, KeyError):
        return text


_PARSERS: dict[str, Callable[[str], Any]] = {
    "int64": int,
    "float64": float,
    "bool": lambda text: {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()],
}


def _dumps(row: dict[str, Any]) -> bytes:
    return orjson.dumps(_plain(row), default=_encode, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """NaN and infinities as text, which the schema refuses; JSON would make them null."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        # Arrow's maps are lists of pairs.
        if value and isinstance(value[0], tuple):
            return {str(key): _plain(each) for key, each in value}
        return [_plain(each) for each in value]
    return value


def _encode(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value))
