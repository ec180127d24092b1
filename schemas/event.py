"""Event types: what stands on a topic (or in a table, or a file), declared once as a pydantic model.

class Flight(Event, topic="flights", time="departed_at", key=["origin"]):
    departed_at: datetime
    origin: str
    distance_miles: Annotated[int, Field(gt=0)]
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin
from uuid import UUID

import msgspec
import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, NaiveDatetime, Strict

from schemas.duration import parse_duration
from schemas.errors import DefinitionError
from schemas.types import TypeNotSupported, arrow_type, element_type, from_annotation, map_types

FORMATS = ("json", "avro", "protobuf")
MAX_FUTURE = "5m"
"""How far ahead of the broker's clock an event may say it happened: producers' clocks differ by seconds."""
DEDUPE_WITHIN = "1h"
"""How long copies of an `id` are looked for: longer than a producer's retries, short enough to keep in memory."""
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9_.-]{1,200}")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
RESERVED_PREFIX = "kafka_"

LOG_COLUMNS: tuple[pa.Field, ...] = (
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("kafka_offset", pa.int64(), nullable=False),
    pa.field("kafka_timestamp", pa.timestamp("us"), nullable=False),
    pa.field("kafka_key", pa.binary()),
)
"""Where an event stands in the log, beside its own columns; the timestamp is the broker's, naive UTC."""


class Column(msgspec.Struct, frozen=True):
    """A column of an event or a request; `type` is a name of schemas/types.py."""

    name: str
    type: str
    nullable: bool


class Enrichment(msgspec.Struct, frozen=True):
    """What an enriched event type was made of: an event type, a view (and its meaning), and the features added."""

    event: str
    view: str
    fingerprint: str
    features: tuple[str, ...]


class EventSpec(msgspec.Struct, frozen=True):
    """An event type as data: all that an executor needs besides its validation.

    One of `topic`, `table` (an Iceberg table) and `path` (Parquet files) is set. `enriched`: a worker writes the topic.
    """

    name: str
    topic: str | None
    table: str | None
    path: str | None
    time: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    id: str | None
    dedupe_within_us: int
    max_future_us: int
    description: str
    format: str = "json"
    enriched: Enrichment | None = None

    @property
    def log_name(self) -> str:
        """The name of its table in the event log: the topic, or the table's or file's own name."""
        return self.topic or self.table or self.path or self.name


class Event(BaseModel):
    """The base of event types. Class keywords:

    `topic=` (or `table=`, an Iceberg table; or `path=`, Parquet files): where the events stand.
    `time=`: the column with the event's instant, a datetime that may not be null.
    `key=[…]`: the columns by which a producer keys its messages; they order a partition.
    `id=`, `dedupe_within="1h"`: copies with the same id are dropped (DESIGN §2).
    `max_future="5m"`: an event further ahead of the broker's clock is rejected.
    `format=`: how a message is encoded: "json" (the default), "avro" or "protobuf" (docs/formats.md).

    Raises DefinitionError for a keyword or a column that can't mean anything.
    """

    # Strict: "12" is no number. What JSON can write as text alone is lax (below), and so is the same in every format.
    model_config = ConfigDict(
        strict=True, extra="ignore", allow_inf_nan=False, val_json_bytes="base64", ser_json_bytes="base64", frozen=True
    )
    __event_spec__: ClassVar[EventSpec | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Keywords wait for `__pydantic_init_subclass__`: the fields are not there yet."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        super().__pydantic_init_subclass__()
        if not keywords:
            return
        try:
            cls.__event_spec__ = _spec(cls, keywords)
        except DefinitionError as error:
            raise error.at(f"{cls.__module__}.{cls.__qualname__}") from None
        _set_how_pydantic_reads(cls)

    @classmethod
    def spec(cls) -> EventSpec:
        """The event type as data. Raises DefinitionError for a class that was declared without topic, table or path."""
        if cls.__event_spec__ is None:
            raise DefinitionError(
                "an event type says where its events stand",
                where=f"{cls.__module__}.{cls.__qualname__}",
                hint=f'write class {cls.__name__}(Event, topic="…", time="…", key=["…"])',
            )
        return cls.__event_spec__


def arrow_schema(spec: EventSpec) -> pa.Schema:
    """The event's own columns."""
    return pa.schema([pa.field(column.name, arrow_type(column.type), column.nullable) for column in spec.columns])


def log_schema(spec: EventSpec) -> pa.Schema:
    """The event's columns and LOG_COLUMNS: a decoded batch, and the table `events.<topic>`."""
    schema = arrow_schema(spec)
    for field in LOG_COLUMNS:
        schema = schema.append(field)
    return schema


KEYWORDS = ("topic", "table", "path", "time", "key", "id", "dedupe_within", "max_future", "format")


def _spec(event: type[Event], keywords: dict[str, Any]) -> EventSpec:
    unknown = sorted(set(keywords) - set(KEYWORDS))
    if unknown:
        raise DefinitionError(
            "unknown keyword of an event", got=", ".join(unknown), hint=f"it takes {', '.join(KEYWORDS)}"
        )
    columns = _columns(event)
    topic, table, path = _place(keywords)
    names = {column.name: column for column in columns}
    return EventSpec(
        name=event.__name__,
        topic=topic,
        table=table,
        path=path,
        time=_time(keywords.get("time"), names),
        key=_key(keywords.get("key", ()), names),
        columns=columns,
        id=_id(keywords.get("id"), names),
        dedupe_within_us=_duration("dedupe_within", keywords.get("dedupe_within", DEDUPE_WITHIN)),
        max_future_us=_duration("max_future", keywords.get("max_future", MAX_FUTURE)),
        description=(event.__doc__ or "").strip() if event.__doc__ != Event.__doc__ else "",
        format=_format(keywords.get("format", "json")),
    )


def _columns(event: type[Event]) -> tuple[Column, ...]:
    columns = []
    for name, field in event.model_fields.items():
        if not _COLUMN.fullmatch(name) or name.startswith(RESERVED_PREFIX):
            raise DefinitionError(
                "a column is letters, digits and underscores, a letter first, at most 63, and not kafka_…",
                got=repr(name),
            )
        try:
            type_name, nullable = from_annotation(field.annotation, tuple(field.metadata))
        except TypeNotSupported as error:
            raise DefinitionError(
                "a column has a type that headrace keeps", where=name, got=repr(field.annotation), hint=str(error)
            ) from None
        columns.append(Column(name, type_name, nullable))
    if len({column.name.lower() for column in columns}) != len(columns):
        raise DefinitionError("columns differ in more than case", got=", ".join(column.name for column in columns))
    if not columns:
        raise DefinitionError("an event has at least one column", hint="write departed_at: datetime")
    return tuple(columns)


def _place(keywords: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    places = {name: keywords[name] for name in ("topic", "table", "path") if keywords.get(name) is not None}
    if len(places) != 1:
        raise DefinitionError(
            "an event stands on one topic=, in one table= or at one path=",
            got=", ".join(f"{name}={value!r}" for name, value in places.items()) or "none",
        )
    ((name, value),) = places.items()
    valid = isinstance(value, str) and bool(value) and (name == "path" or _TOPIC.fullmatch(value) is not None)
    if not valid:
        raise DefinitionError(f"{name}= is a name of letters, digits, dots, dashes and underscores", got=repr(value))
    return places.get("topic"), places.get("table"), places.get("path")


def _time(name: Any, columns: dict[str, Column]) -> str:
    if name is None:
        raise DefinitionError("an event names the column of its instant", hint='write time="departed_at"')
    column = _column("time", name, columns)
    if column.type != "timestamp" or column.nullable:
        raise DefinitionError(
            "the time of an event is a datetime that is never None",
            got=f"{name!r} of type {column.type}{' | None' if column.nullable else ''}",
        )
    return column.name


def _key(key: Any, columns: dict[str, Column]) -> tuple[str, ...]:
    names = (key,) if isinstance(key, str) else key
    if not isinstance(names, Sequence):
        raise DefinitionError("key= is a list of columns", got=repr(key), hint='write key=["origin"]')
    return tuple(_column("key", name, columns).name for name in names)


def _id(name: Any, columns: dict[str, Column]) -> str | None:
    if name is None:
        return None
    column = _column("id", name, columns)
    if element_type(column.type) or map_types(column.type):
        raise DefinitionError("an id is one value", got=f"{name!r} of type {column.type}")
    return column.name


def _column(what: str, name: Any, columns: dict[str, Column]) -> Column:
    if name not in columns:
        raise DefinitionError(f"{what}= names a column", got=repr(name), hint=f"there are: {', '.join(columns)}")
    return columns[name]


def _duration(what: str, text: Any) -> int:
    try:
        return parse_duration(text)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{what}= is a duration", got=repr(text), hint=f'write "5m" ({error})') from None


def _format(name: Any) -> str:
    if name not in FORMATS:
        raise DefinitionError(f"format= is one of {', '.join(FORMATS)}", got=repr(name))
    return str(name)


def _set_how_pydantic_reads(event: type[Event]) -> None:
    """Instants, dates, decimals, UUIDs and Enums are read from what a format has for them: text, or a number.

    An epoch number is an instant as pydantic reads it: in milliseconds beyond ±2·10¹⁰, in seconds below.
    """
    changed = False
    for field in event.model_fields.values():
        lax, is_list = _has_text_form(field.annotation), _is_list(field.annotation)
        field.metadata += [Strict(False)] if lax else []
        # One wrong item refuses the event; a megabyte of them would cost half a second to describe.
        field.metadata += [FailFast()] if is_list else []
        changed |= lax or is_list
    if changed:
        # Names of a caller's scope are resolved already: nothing is looked up again.
        event.model_rebuild(force=True, _types_namespace={})


def _is_list(annotation: Any) -> bool:
    if isinstance(annotation, types.UnionType) or get_origin(annotation) in (Annotated, Union):
        return any(_is_list(each) for each in get_args(annotation))
    return get_origin(annotation) is list


def _has_text_form(annotation: Any) -> bool:
    if get_origin(annotation) is not None:
        return any(_has_text_form(each) for each in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        # A lax Enum of numbers would take True for 1.
        return all(isinstance(each.value, str) for each in annotation)
    return annotation in (datetime, AwareDatetime, NaiveDatetime, date, Decimal, UUID)
