"""`headrace get`: one vector, read in this process from Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from features.plan import Definitions
from features.service import join_key_columns, request_columns
from headrace.settings import read_settings, settings_for
from headrace.terminal.output import out, print_json, print_table
from headrace.wiring import applied_definitions
from schemas.errors import RequestError
from schemas.event import Column
from schemas.row import NO_EVENT
from serving.cluster import open_redis
from serving.entities import instant_us
from serving.explain import explain as trails
from serving.read import Reader
from serving.settings import ServingSettings
from serving.vectors import Status, Vectors, iso

NO_EVENTS = "and one of its views knows of no event yet"


def run_get(what: str, pairs: Sequence[str], explain: bool, as_of: str | None, json: bool) -> None:
    """Read and print. Raises RequestError for what can't be asked so."""
    settings = read_settings(ServingSettings)
    definitions = applied_definitions(settings)
    entities = {name: [value] for name, value in _values(pairs, _columns(definitions, what)).items()}
    as_of_us = None if as_of is None else instant_us(as_of, "--as-of")
    reader = Reader(open_redis(settings.redis_address(), timeout_s=settings.redis_timeout_s), definitions)
    try:
        vectors = reader.read(what.split(",") if ":" in what else what, entities, as_of_us=as_of_us)
        answer = _as_json(vectors)
        if explain:
            answer["explain"] = trails(vectors)[0]["values"]
    finally:
        reader.close()
    if explain:
        _add_events(answer, definitions, settings)
    if json:
        print_json(answer)
    else:
        _print(answer, explain)


def _add_events(answer: dict[str, Any], definitions: Definitions, settings: ServingSettings) -> None:
    """To each value of a view the event rows behind it, where this host has Iceberg's part installed."""
    try:
        from batch.settings import BatchSettings
        from batch.sql import Session
        from headrace.run.event_rows import EventRows
    except ImportError:
        return
    rows = EventRows(Session(settings_for(BatchSettings, settings)), answer["entity"])
    for trail in answer["explain"]:
        view = trail["feature"].partition(":")[0]
        if view in definitions.views:
            trail["events_behind"] = rows.behind(definitions.views[view], trail)


def _columns(definitions: Definitions, what: str) -> dict[str, Column]:
    """The columns that a request may bring: of the service, or of all views where features are named."""
    if what not in definitions.services and ":" not in what:
        known = ", ".join(definitions.services) or "none"
        raise RequestError(
            "no such service", got=repr(what), hint=f"there are: {known}; or name features, view:feature"
        )
    if what in definitions.services:
        service = definitions.services[what]
        columns = [*join_key_columns(definitions, service), *request_columns(definitions, service)]
    else:
        columns = [key for view in definitions.views.values() for key in view.keys]
        columns += [column for view in definitions.derived.values() for column in view.request]
    return {column.name: column for column in columns}


def _values(pairs: Sequence[str], columns: dict[str, Column]) -> dict[str, Any]:
    """key=value texts in the columns' types; an empty value is null."""
    values: dict[str, Any] = {}
    if not pairs:
        keys = " ".join(f"{name}=…" for name in columns)
        raise RequestError("a vector is of an entity", got="no key", hint=f"write headrace get … {keys}")
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise RequestError("an entity is named as key=value", got=repr(pair), hint="write origin=JFK")
        column = columns.get(name)
        if column is None:
            raise RequestError("no such key", got=repr(name), hint=f"it takes {', '.join(columns)}")
        values[name] = _typed(text, column) if text else None
    return values


def _typed(text: str, column: Column) -> Any:
    parse = _PARSERS.get(column.type, str)
    try:
        return parse(text)
    except ValueError:
        raise RequestError(
            f"{column.name} is of type {column.type}", got=repr(text), hint="give such a value"
        ) from None


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "int64": int,
    "float64": float,
    "bool": _bool,
    "date": date.fromisoformat,
}


def _as_json(vectors: Vectors) -> dict[str, Any]:
    names = vectors.reading.full_names
    values = {name: column[0] for name, column in vectors.to_dict(full_feature_names=True).items()}
    return {
        "instant": iso(int(vectors.instants_us[0])),
        "entity": {name: values[name] for name in vectors.entities},
        "values": {name: values[name] for name in names},
        "statuses": {
            name: Status(int(statuses[0])).name for name, statuses in zip(names, vectors.statuses, strict=True)
        },
        "age_us": None if any(view.folded_us[0] == NO_EVENT for view in vectors.views) else int(vectors.ages_us[0]),
        "reason": vectors.reasons().get(0),
    }


def _print(answer: dict[str, Any], explain: bool) -> None:
    age = answer["age_us"]
    out().print(f"at {answer['instant']}, {NO_EVENTS if age is None else f'from state {_age(age)} old'}")
    if answer["reason"]:
        out().print(answer["reason"])
    if not explain:
        rows = [(name, value, answer["statuses"][name]) for name, value in answer["values"].items()]
        print_table(["feature", "value", "status"], rows, right=["value"])
        return
    for trail in answer["explain"]:
        out().print(f"\n{trail['feature']} = {trail['value']} ({trail['status']})")
        for name, value in trail.items():
            if name not in ("feature", "value", "status", "events_behind") and value is not None:
                out().print(f"    {name}: {_words(value)}")
        behind = trail.get("events_behind", {})
        if "landed" in behind:
            out().print(f"    events in the log: {behind['landed']:,}; the newest of them:")
        if "trouble" in behind:
            out().print(f"    events in the log can't be shown: {behind['trouble']}")
        for row in behind.get("newest", ()):
            shown = {name: value for name, value in row.items() if name != "kafka_key" and value is not None}
            out().print(f"        {', '.join(f'{name} {value}' for name, value in shown.items())}")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(_words(each) for each in value)
    return str(value)


def _age(age_us: int) -> str:
    """Microseconds in the unit that a person would take."""
    for unit, size in (
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
    ):
        if age_us >= size:
            return f"{age_us / size:.1f} {unit}"
    return f"{age_us} µs"
