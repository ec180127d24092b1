"""Columns of values as protobuf's bytes: Feast's FeatureVector, written by the column and parsed by protobuf in C.

A Value made one by one in Python costs a microsecond, and a request has thousands of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from features.finish import Values
from schemas.row import NO_EVENT
from serving.feast.values import to_protos
from serving.vectors import Statuses

VALUES = b"\x0a"
"""The tag of FeatureVector.values: field 1, with a length."""
STATUSES = b"\x12"
STAMPS = b"\x1a"
_NULL = VALUES + b"\x00"
_DOUBLE = Value(double_val=1.0).SerializeToString()
_DOUBLE_HEAD = VALUES + bytes([len(_DOUBLE)]) + _DOUBLE[:-8]


def vector_bytes(type_name: str, column: Values, statuses: Statuses, stamps: bytes) -> bytes:
    """A FeatureVector: the values, their statuses, and the timestamps as `stamps_bytes` wrote them."""
    packed = statuses.astype(np.uint8).tobytes()
    return b"".join([_values(type_name, column), STATUSES, varint(len(packed)), packed, stamps])


def stamps_bytes(newest_us: Sequence[int]) -> bytes:
    """The event timestamps of a view's entities; Feast's 1970 where there is none."""
    return b"".join([_stamp(us) for us in newest_us])


@lru_cache(maxsize=4_096)
def _stamp(newest_us: int) -> bytes:
    if newest_us == NO_EVENT:
        return STAMPS + b"\x00"
    second, fraction = divmod(newest_us, 1_000_000)
    text: bytes = Timestamp(seconds=second, nanos=fraction * 1_000).SerializeToString()
    return STAMPS + varint(len(text)) + text


def _values(type_name: str, column: Values) -> bytes:
    if type_name == "float64":
        return _doubles(column)
    if type_name == "int64":
        return b"".join([_NULL if value is None else _int(value) for value in column.to_list()])
    parts = []
    for value in to_protos(type_name, column):
        text = value.SerializeToString()
        parts += [VALUES, varint(len(text)), text]
    return b"".join(parts)


def _doubles(column: Values) -> bytes:
    head = np.frombuffer(_DOUBLE_HEAD, np.uint8)
    table = np.empty((len(column.values), len(head) + 8), np.uint8)
    table[:, : len(head)] = head
    # Protobuf's doubles are little-endian, whatever the machine's are.
    table[:, len(head) :] = np.ascontiguousarray(column.values, "<f8").view(np.uint8).reshape(-1, 8)
    if column.valid.all():
        return table.tobytes()
    return b"".join([row.tobytes() if ok else _NULL for row, ok in zip(table, column.valid.tolist(), strict=True)])


@lru_cache(maxsize=65_536)
def _int(value: int) -> bytes:
    text: bytes = Value(int64_val=value).SerializeToString()
    return VALUES + varint(len(text)) + text


def varint(number: int) -> bytes:
    """A length as protobuf writes it."""
    text = bytearray()
    while number > 0x7F:
        text.append(number & 0x7F | 0x80)
        number >>= 7
    text.append(number)
    return bytes(text)
