"""What bad input becomes: a reason from a closed list, and everything that is needed to see and to replay it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import pyarrow as pa

DETAIL_CHARACTERS_MAX = 1_000
"""A decoder's message may quote its input, which may be megabytes."""

MESSAGE_BYTES_MAX = 1 << 20
"""1 MiB, what Kafka takes where nobody has said otherwise: an event is a row, and a row of a feature's inputs is small.
What a larger one costs to read would be paid by everything behind it in its partition."""
ENCODED_BYTES_MAX = 1_000_000
"""What a producer sends and a broker takes where nobody has said otherwise."""
VALUE_BYTES_KEPT = 512 << 10
KEY_BYTES_KEPT = 64 << 10
"""Of a message whose rejection is larger: in base64, a value and a key of this size stay below ENCODED_BYTES_MAX."""


class Reason(StrEnum):
    """Why a message is no event. Closed: metrics, tables and people count by it."""

    EMPTY = "empty"
    """The message has no bytes (a tombstone)."""
    TOO_LARGE = "too_large"
    """The message is larger than MESSAGE_BYTES_MAX."""
    UNDECODABLE = "undecodable"
    """The bytes are not of the topic's format."""
    UNKNOWN_SCHEMA = "unknown_schema"
    """The registry has no schema under the number that the message names, or one that can't be read."""
    MISSING_FIELD = "missing_field"
    """A field without a default is absent."""
    WRONG_TYPE = "wrong_type"
    """A field is there, with a value of another type (null included)."""
    BAD_VALUE = "bad_value"
    """A value of the right type that the schema's constraints refuse; NaN, infinities and integers beyond 64 bits."""
    BAD_TIME = "bad_time"
    """The event's instant can't be read, or lies outside 1700 to 2250."""
    FUTURE = "future"
    """The event's instant lies further ahead of the broker's clock than `max_future`."""


class Rejection(msgspec.Struct, frozen=True):
    """One message that is no event. `path` names the field ("legs[2].origin"); `value` holds the original bytes."""

    reason: Reason
    detail: str
    path: str
    topic: str
    partition: int
    offset: int
    timestamp_us: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None


REJECTS_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("kafka_timestamp", pa.timestamp("us"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("headers", pa.string(), nullable=False),
        pa.field("value", pa.binary()),
    ]
)
"""The Iceberg table `rejects`; `headers` is JSON [[name, base64 or null], …]."""


def rejections_table(rejections: Sequence[Rejection]) -> pa.Table:
    """Rejections as rows of REJECTS_SCHEMA."""
    columns = [
        [str(each.reason) for each in rejections],
        [each.detail for each in rejections],
        [each.path for each in rejections],
        [each.topic for each in rejections],
        [each.partition for each in rejections],
        [each.offset for each in rejections],
        pa.array([each.timestamp_us for each in rejections], pa.int64()).cast(pa.timestamp("us")),
        [each.key for each in rejections],
        [msgspec.json.encode(each.headers).decode() for each in rejections],
        [each.value for each in rejections],
    ]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, REJECTS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=REJECTS_SCHEMA)


def rejections_of(table: pa.Table) -> list[Rejection]:
    """The rejections in rows of REJECTS_SCHEMA."""
    stamps = table["kafka_timestamp"].cast(pa.int64()).to_pylist()
    return [
        Rejection(
            reason=Reason(row["reason"]),
            detail=row["detail"],
            path=row["path"],
            topic=row["topic"],
            partition=row["kafka_partition"],
            offset=row["kafka_offset"],
            timestamp_us=timestamp_us,
            key=row["key"],
            headers=msgspec.json.decode(row["headers"], type=list[tuple[str, bytes | None]]),
            value=row["value"],
        )
        for timestamp_us, row in zip(stamps, table.drop(["kafka_timestamp"]).to_pylist(), strict=True)
    ]


def encode_rejection(rejection: Rejection) -> bytes:
    """A message of the rejects topic: JSON, bytes in base64.

    What no broker would take is cut, and says so: the table of rejects has all of it, and so has the topic.
    """
    data = msgspec.json.encode(rejection)
    if len(data) <= ENCODED_BYTES_MAX:
        return data
    value, key = rejection.value or b"", rejection.key or b""
    headers = rejection.headers
    if sum(len(name.encode()) + len(content or b"") for name, content in headers) > KEY_BYTES_KEPT:
        headers = []
    cut = f"(the first {VALUE_BYTES_KEPT} of {len(value)} bytes, {len(headers)} of {len(rejection.headers)} headers)"
    return msgspec.json.encode(
        msgspec.structs.replace(
            rejection,
            detail=f"{cut} {rejection.detail}",
            key=rejection.key and key[:KEY_BYTES_KEPT],
            headers=headers,
            value=rejection.value and value[:VALUE_BYTES_KEPT],
        )
    )


def decode_rejection(data: bytes) -> Rejection:
    """The rejection in a message of the rejects topic; raises msgspec.MsgspecError for anything else."""
    return msgspec.json.decode(data, type=Rejection)
