"""Entities as text and back: the keys of events, as columns again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from features.plan import ViewPlan
from schemas.errors import DataError
from schemas.types import arrow_type

_PARSERS: dict[str, Callable[[str], Any]] = {"int64": int, "bool": lambda text: text == "true"}


def key_columns(plan: ViewPlan, texts: Sequence[str]) -> pa.Table:
    """The join keys of entities, from their keys' texts (`schemas.row.entity_key`)."""
    rows = [_parts(text, len(plan.keys)) for text in texts]
    columns = {}
    for number, key in enumerate(plan.keys):
        parse = _PARSERS.get(key.type, str)
        columns[key.name] = pa.array([parse(row[number]) for row in rows], arrow_type(key.type))
    return pa.table(columns)


def _parts(text: str, count: int) -> list[str]:
    """The parts of a key's text: itself where there is one, else `<bytes>:<text>` one after the other."""
    if count == 1:
        return [text]
    data, at, parts = text.encode(), 0, []
    while at < len(data):
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at:colon])
        parts.append(data[colon + 1 : end].decode())
        at = end
    if len(parts) != count:
        raise DataError("an entity's key has as many parts as its view has join keys", got=repr(text))
    return parts
