"""Served vectors as they are logged: the table `served.<service>`, and the JSON message of one vector.

A vector is logged with all that it takes to compute it again: keys, request columns, values, its instant, the features
that the service had, the views' fingerprints, and the checkpoints of the shards that it was read from. DOUBLEs go
through JSON bit for bit (the shortest text that reads back as the same number); bytes are base64, instants µs and dates
days since 1970, decimals text, maps pairs.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from features.plan import Definitions, ServicePlan
from features.service import feature_columns, join_key_columns, request_columns
from schemas.decode import Batch, Decoded
from schemas.event import LOG_COLUMNS
from schemas.rejection import DETAIL_CHARACTERS_MAX, Reason, Rejection
from schemas.types import arrow_type, element_type, from_arrow, is_decimal, map_types

Convert = Callable[[Any], Any]

KAFKA_COLUMNS = LOG_COLUMNS[:3]
"""Where a vector stands in the log; its Kafka key is no column, since the entity's keys are."""
_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
_EPOCH_DAY = date(1970, 1, 1)


def served_topic(service: str) -> str:
    """The topic of a service's served vectors."""
    return f"served.{service}"


def served_schema(definitions: Definitions, service: ServicePlan) -> pa.Schema:
    """The table `served.<service>`: a logged vector with what it takes to compute it again.

    `features`: JSON [view__feature], those that the service had; null in vectors that were logged without.
    `fingerprints`: JSON {view: fingerprint}, derived views too. `checkpoints`: JSON {view: [[source, partition,
    offset], …]} of the shard that the entity's row was read from; behind the offset of a partition −1 stands, as hex,
    what tells a table's or files' content from another. The instant is naive UTC.
    """
    columns = [
        *join_key_columns(definitions, service),
        *request_columns(definitions, service),
        *feature_columns(definitions, service),
    ]
    return pa.schema(
        [
            pa.field("instant", pa.timestamp("us"), nullable=False),
            *(pa.field(column.name, arrow_type(column.type)) for column in columns),
            pa.field("features", pa.string()),
            pa.field("fingerprints", pa.string(), nullable=False),
            pa.field("checkpoints", pa.string(), nullable=False),
            *KAFKA_COLUMNS,
        ]
    )


def encode_served(schema: pa.Schema, columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """One message a vector. `columns` has Python values for each column of `schema` but Kafka's own."""
    fields = own_fields(schema)
    converted = []
    for field in fields:
        to_json = _to_json(from_arrow(field.type))
        values = columns[field.name]
        converted.append(values if to_json is None else [None if v is None else to_json(v) for v in values])
    names = [field.name for field in fields]
    return [orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*converted, strict=True)]


def decode_served(batch: Batch, schema: pa.Schema) -> Decoded:
    """The vectors of a batch in its order, as rows of `schema`; a message that is no such vector is a rejection.

    A column that a message lacks (the service did not have it yet) is null; one that `schema` lacks is left out.
    """
    fields = own_fields(schema)
    readers = [(field, _from_json(from_arrow(field.type))) for field in fields]
    rows: list[list[Any]] = []
    kept: list[int] = []
    rejections: list[Rejection] = []
    for number, value in enumerate(batch.values):
        try:
            rows.append(_row(value, readers))
            kept.append(number)
        except (ValueError, TypeError, ArithmeticError, KeyError, pa.ArrowException) as error:
            rejections.append(_rejection(batch, number, error))
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    index = np.array(kept, np.int64)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    arrays.append(pa.array(batch.partitions[index], pa.int32()))
    arrays.append(pa.array(batch.offsets[index], pa.int64()))
    arrays.append(pa.array(batch.timestamps_us[index], pa.int64()).cast(pa.timestamp("us")))
    return Decoded(pa.Table.from_arrays(arrays, schema=schema), rejections)


def own_fields(schema: pa.Schema) -> list[pa.Field]:
    """The columns of `served.<service>` that a message itself carries."""
    kafka = {field.name for field in KAFKA_COLUMNS}
    return [field for field in schema if field.name not in kafka]


def _row(value: bytes | None, readers: list[tuple[pa.Field, Convert | None]]) -> list[Any]:
    message = orjson.loads(value or b"")
    if not isinstance(message, dict):
        raise TypeError(f"a served vector is a JSON object, not {type(message).__name__}")
    row = []
    for field, from_json in readers:
        cell = message.get(field.name)
        if cell is None and not field.nullable:
            raise KeyError(f"{field.name} is missing")
        row.append(cell if cell is None or from_json is None else from_json(cell))
        # Arrow is asked value by value, so that one bad value is one rejection.
        pa.scalar(row[-1], field.type)
    return row


def _rejection(batch: Batch, number: int, error: Exception) -> Rejection:
    return Rejection(
        reason=Reason.EMPTY if not batch.values[number] else Reason.UNDECODABLE,
        detail=f"no vector of this service: {error}"[:DETAIL_CHARACTERS_MAX],
        path="",
        topic=batch.topic,
        partition=int(batch.partitions[number]),
        offset=int(batch.offsets[number]),
        timestamp_us=int(batch.timestamps_us[number]),
        key=batch.keys[number],
        headers=batch.messages[number].headers() or [],
        value=batch.values[number],
    )


def _instant_us(value: datetime | int) -> int:
    if isinstance(value, int):
        return value
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _to_json(type_name: str) -> Convert | None:
    """How a value of the type stands in a message; None: as it is."""
    if type_name in _TO_JSON:
        return _TO_JSON[type_name]
    if is_decimal(type_name):
        return str
    if (element := element_type(type_name)) is not None:
        return _each(_to_json(element))
    if (types := map_types(type_name)) is not None:
        return _pairs(_to_json(types[0]), _to_json(types[1]))
    return None


def _from_json(type_name: str) -> Convert | None:
    """The inverse of `_to_json`."""
    if type_name == "bytes":
        return base64.b64decode
    if is_decimal(type_name):
        return Decimal
    if (element := element_type(type_name)) is not None:
        return _each(_from_json(element))
    if (types := map_types(type_name)) is not None:
        return _pairs(_from_json(types[0]), _from_json(types[1]))
    return None


_TO_JSON: dict[str, Convert] = {
    "bytes": lambda value: base64.b64encode(value).decode(),
    "timestamp": _instant_us,
    "date": lambda value: (value - _EPOCH_DAY).days,
}


def _each(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda values: [None if value is None else convert(value) for value in values]


def _pairs(key: Convert | None, item: Convert | None) -> Convert:
    def pairs(value: Mapping[Any, Any] | Sequence[Sequence[Any]]) -> list[tuple[Any, Any]]:
        entries = value.items() if isinstance(value, Mapping) else value
        return [(_maybe(key, k), _maybe(item, v)) for k, v in entries]

    return pairs


def _maybe(convert: Convert | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)
