"""Vectors -> Feast's answer in JSON, column by column.

    {"metadata": {"feature_names": […]},
     "results": [{"values": […], "statuses": […], "event_timestamps": […]}, …],     join keys first
     "headrace": {"instants": […], "ages_us": […], "reasons": {…}}}

DOUBLEs are written as the shortest text that reads back as the same number, 2.0 never as 2; an instant is ISO 8601 with
a Z; bytes are base64; a decimal is text; a map is an object. An empty list is null, because Feast's remote client can't
take one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from features.finish import Values
from features.ranges import Ints
from schemas.row import NO_EVENT
from schemas.types import element_type, is_decimal, map_types
from serving.vectors import Status, Statuses, Vectors

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
NUMBERS = ("int64", "float64", "bool")
_NAMES = [f'"{status.name}"'.encode() for status in Status]


def answer_json(
    vectors: Vectors,
    full_feature_names: bool = False,
    more: dict[str, Any] | None = None,
    *,
    versions: bool = False,
) -> bytes:
    """The answer's body. `more` stands beside "results"; `versions` adds Feast's "feature_view_metadata".

    Raises RequestError where short names are not unique.
    """
    reading = vectors.reading
    names = reading.full_names if full_feature_names else reading.short_names
    metadata: dict[str, Any] = {"feature_names": [*vectors.entities, *names]}
    if versions:
        views = dict.fromkeys(output.view for output in reading.outputs)
        metadata["feature_view_metadata"] = [{"name": name} for name in views]
    parts = [b'{"metadata":', orjson.dumps(metadata), b',"results":[']
    parts += [_key_column(values, vectors.count) for values in vectors.entities.values()]
    whole = _whole(vectors.columns, vectors.count)
    stamps = [instants_json(view.newest_us) for view in vectors.views]
    all_present = _repeated(_NAMES[Status.PRESENT], vectors.count)
    for output, values, complete in zip(reading.outputs, vectors.columns, whole, strict=True):
        stamp = derived_stamps(vectors, output.source) if output.derived else stamps[output.source]
        present = complete and vectors.late is None
        statuses = all_present if present else statuses_json(vectors.statuses_of(output, values))
        text = values_json(output.type, values, complete)
        parts += (b'{"values":', text, b',"statuses":', statuses, b',"event_timestamps":', stamp, b"},")
    parts[-1] = parts[-1].rstrip(b",")
    parts += [b'],"headrace":', orjson.dumps(_beside(vectors), option=OPTIONS)]
    for name, value in (more or {}).items():
        parts += [b",", orjson.dumps(name), b":", orjson.dumps(value, option=OPTIONS)]
    return b"".join([*parts, b"}"])


def _whole(columns: Sequence[Values], count: int) -> list[bool]:
    """Of each column whether no value is null."""
    if not columns:
        return []
    valid = np.concatenate([each.valid for each in columns]).reshape(len(columns), count)
    whole: list[bool] = np.logical_and.reduce(valid, axis=1).tolist()
    return whole


def values_json(type_name: str, values: Values, whole: bool) -> bytes:
    """A feature's values as a JSON array; `whole`: none is null."""
    if type_name in NUMBERS and values.values.dtype != object:
        if whole:
            array = values.values
            return orjson.dumps(array if array.flags.c_contiguous else np.ascontiguousarray(array), option=OPTIONS)
        if type_name == "float64":
            return orjson.dumps(np.where(values.valid, values.values, np.nan), option=OPTIONS)
    convert = to_json(type_name)
    plain = values.to_list()
    return orjson.dumps(
        plain if convert is None else [None if v is None else convert(v) for v in plain], option=OPTIONS
    )


def statuses_json(statuses: Statuses) -> bytes:
    """Statuses by their names."""
    if len(statuses) and (statuses == statuses[0]).all():
        return _repeated(_NAMES[int(statuses[0])], len(statuses))
    return b"[" + b",".join([_NAMES[status] for status in statuses.tolist()]) + b"]"


def instants_json(instants_us: Ints) -> bytes:
    """Instants as JSON; where there is none, Feast's 1970."""
    known = np.where(instants_us == NO_EVENT, 0, instants_us)
    return orjson.dumps(known.view("datetime64[us]"), option=OPTIONS)


def derived_stamps(vectors: Vectors, number: int) -> bytes:
    """The event timestamps of a derived view: the newest of its inputs'."""
    positions = vectors.reading.positions
    views = {positions[use][0] for use in vectors.reading.derived[number].uses}
    newest = np.full(vectors.count, NO_EVENT)
    for view in views:
        np.maximum(newest, vectors.views[view].newest_us, out=newest)
    return instants_json(newest)


def to_json(type_name: str) -> Callable[[Any], Any] | None:
    """How one value of the type is written; None: as orjson writes it."""
    if type_name == "bytes":
        return _base64
    if is_decimal(type_name):
        return str
    if (element := element_type(type_name)) is not None:
        return _list(to_json(element))
    if (types := map_types(type_name)) is not None:
        return _map(types[0], to_json(types[1]))
    return None


def _key_column(values: Sequence[Any], count: int) -> bytes:
    statuses, stamps = _repeated(_NAMES[Status.PRESENT], count), _repeated(b'"1970-01-01T00:00:00Z"', count)
    return b'{"values":%b,"statuses":%b,"event_timestamps":%b},' % (orjson.dumps(list(values)), statuses, stamps)


@lru_cache(maxsize=1024)
def _repeated(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


def _beside(vectors: Vectors) -> dict[str, Any]:
    beside: dict[str, Any] = {"instants": vectors.instants_us.view("datetime64[us]")}
    if vectors.views:
        beside["ages_us"] = vectors.age_or_none()
    reasons = vectors.reasons()
    if reasons:
        beside["reasons"] = {str(entity): reason for entity, reason in reasons.items()}
    return beside


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _list(element: Callable[[Any], Any] | None) -> Callable[[Sequence[Any]], list[Any] | None]:
    def convert(values: Sequence[Any]) -> list[Any] | None:
        if not len(values):
            return None
        return list(values) if element is None else [None if v is None else element(v) for v in values]

    return convert


def _map(key_type: str, item: Callable[[Any], Any] | None) -> Callable[[Any], dict[str, Any]]:
    def convert(value: Any) -> dict[str, Any]:
        pairs = value.items() if isinstance(value, dict) else value
        return {map_key(key_type, key): value if item is None or value is None else item(value) for key, value in pairs}

    return convert


def map_key(type_name: str, key: Any) -> str:
    """A map's key as an object's name in JSON."""
    if type_name == "bool":
        return "true" if key else "false"
    return str(key)
