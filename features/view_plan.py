"""A declared view -> its plan: a tuple of passes over one draft, in the order in which they stand in PASSES."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import msgspec

from features.aggregation import Aggregation, Composition, Part
from features.aggregations import Last
from features.errors import DefinitionError
from features.expression import Bound, bind
from features.plan import (
    ELEMENT,
    EVERY_EVENT,
    LIFETIME,
    Cell,
    CellKind,
    Feature,
    Finish,
    Input,
    Resolution,
    Source,
    ViewPlan,
    WindowPlan,
)
from features.source import AnySource, columns_of, sources_of
from features.udf import Udf
from features.window import AnyWindow, check_tiles
from schemas.event import Column
from schemas.row import RESOLUTIONS_MAX
from schemas.types import KEY_SCALARS, duckdb_type, element_type, map_types

KEY_TYPES = ("string", "int64", "bool")
MEANING_VERSION = 1
"""Part of every fingerprint: raised when this code gives the same declaration another meaning or layout."""


class Declared(Protocol):
    """A view as it was declared."""

    name: str
    entities: tuple[Any, ...]
    source: AnySource
    features: dict[str, Any]
    where: str | None
    shards: int
    owner: str
    description: str
    tags: dict[str, str]


@dataclass
class _Draft:
    view: Declared
    sources: tuple[Source, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    keys: tuple[Column, ...] = ()
    where: str | None = None
    inputs: list[Input] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)


def plan_view(view: Declared) -> ViewPlan:
    """The plan of a view; `storage_id` is left empty, since it depends on the project. Raises DefinitionError."""
    return _planned(view, PASSES, "windowed")


def plan_latest(view: Declared, ttl_us: int | None) -> ViewPlan:
    """The plan of a view of latest values, null where they are older than `ttl_us`. Raises DefinitionError."""
    return _planned(view, (*PASSES[:3], partial(_latest, ttl_us=ttl_us)), "latest")


def _planned(
    view: Declared, passes: tuple[Callable[[_Draft], None], ...], kind: Literal["windowed", "latest"]
) -> ViewPlan:
    draft = _Draft(view)
    for run in passes:
        run(draft)
    plan = ViewPlan(
        name=view.name,
        fingerprint="",
        storage_id="",
        entities=tuple(entity.name for entity in view.entities),
        keys=draft.keys,
        sources=draft.sources,
        where=draft.where,
        inputs=tuple(draft.inputs),
        cells=tuple(draft.cells),
        resolutions=tuple(draft.resolutions),
        features=tuple(draft.features),
        shards=view.shards,
        kind=kind,
        owner=view.owner,
        description=view.description,
        tags=view.tags,
    )
    return msgspec.structs.replace(plan, fingerprint=fingerprint(plan))


def fingerprint(plan: ViewPlan) -> str:
    """32 hex digits of all that decides a value or a byte of state; owner, description and tags do not."""
    sources = [
        (s.event.topic, s.event.table, s.event.path, s.event.time, s.event.id, s.event.dedupe_within_us, s.mapping)
        for s in plan.sources
    ]
    # Where a topic is named by hand, the name does not tell what the events are enriched by.
    enriched = [s.event.enriched.fingerprint for s in plan.sources if s.event.enriched is not None]
    features = [(f.name, f.type, f.finish, f.cells, f.window, f.parameters) for f in plan.features]
    meaning = (
        MEANING_VERSION,
        plan.keys,
        sources,
        plan.where,
        plan.inputs,
        plan.cells,
        plan.resolutions,
        features,
        plan.shards,
        *enriched,
    )
    return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:32]


def with_project(plan: ViewPlan, project: str) -> ViewPlan:
    """The plan with the `storage_id` under which its state lives in Redis."""
    digest = hashlib.sha256(f"{project}\n{plan.name}\n{plan.fingerprint}".encode()).hexdigest()
    return msgspec.structs.replace(plan, storage_id=digest[:12])


def _read_columns(draft: _Draft) -> None:
    draft.sources = sources_of(draft.view.source)
    draft.columns = {column.name: column.type for column in columns_of(draft.view.source)}


def _resolve_keys(draft: _Draft) -> None:
    source = draft.view.source
    columns = {column.name: column for column in columns_of(source)}
    for entity in draft.view.entities:
        column = columns.get(entity.join_key)
        if column is None:
            raise DefinitionError(
                f"{source.__name__} has no column for the join key of entity {entity.name!r}",
                got=repr(entity.join_key),
                hint=f"its columns are: {', '.join(columns)}",
            )
        if column.type not in KEY_TYPES:
            raise DefinitionError(
                f"a join key is one of {', '.join(KEY_TYPES)}",
                got=f"{entity.join_key!r} of type {column.type}",
                hint="key by another column",
            )
        draft.keys += (column,)


def _bind_where(draft: _Draft) -> None:
    if draft.view.where is not None:
        draft.where = _condition(draft.view.where, draft.columns).sql


def _choose_tiles(draft: _Draft) -> None:
    windows = [aggregation.over for aggregation in draft.view.features.values()]
    check_tiles([window for window in windows if window is not None])
    spans: dict[Resolution, int] = {}
    for window in windows:
        resolution = _resolution(draft, window)
        kind = msgspec.structs.replace(resolution, span_us=0)
        spans[kind] = max(spans.get(kind, 0), resolution.span_us)
    if len(spans) > RESOLUTIONS_MAX:
        raise DefinitionError(f"a view has at most {RESOLUTIONS_MAX} hops", got=str(len(spans)), hint="split the view")
    resolutions = [msgspec.structs.replace(kind, span_us=span) for kind, span in spans.items()]
    draft.resolutions = sorted(resolutions, key=lambda r: (r.hop_us, r.keeps_past, str(r.calendar)))


def _resolution(draft: _Draft, window: AnyWindow | None) -> Resolution:
    if window is None:
        return Resolution(LIFETIME, 0)
    return window.resolution(max(source.event.max_future_us for source in draft.sources))


def _compose(draft: _Draft) -> None:
    for name, aggregation in draft.view.features.items():
        try:
            draft.features.append(_feature(draft, name, aggregation))
        except DefinitionError as error:
            raise error.at(f"feature {name!r}") from None


PASSES = (_read_columns, _resolve_keys, _bind_where, _choose_tiles, _compose)


def _feature(draft: _Draft, name: str, aggregation: Aggregation) -> Feature:
    filtered = None if aggregation.where is None else _condition(aggregation.where, draft.columns).sql
    value = _bound(aggregation.expression, draft.columns)
    shape = _Shape.of(aggregation, value)
    composed = aggregation.compose(shape.single)
    if value is not None and composed.cast is not None:
        value = _cast(value, shape, composed.cast)
        shape = _Shape.of(aggregation, value)
    cells, type_name = _nested(draft, aggregation, composed, value, filtered, shape)
    numbers = tuple(_number(draft, cell) for cell in cells)
    window = _window_plan(draft, aggregation.over)
    return Feature(name, type_name, composed.finish, numbers, window, repr(aggregation), composed.parameters)


@dataclass(frozen=True)
class _Shape:
    """What an input is to an aggregation: `single` is the type of the values that its cells are over.

    `outer`: the cell that takes lists or maps apart first.
    """

    single: str | None
    outer: CellKind | None = None

    @classmethod
    def of(cls, aggregation: Aggregation, value: Bound | None) -> _Shape:
        if value is None:
            return cls(None)
        element, types = element_type(value.type), map_types(value.type)
        if element is not None and aggregation.element_by_element:
            return cls(element, CellKind.ELEMENTS)
        if types is not None and aggregation.element_by_element:
            return cls(types[1], CellKind.BY)
        if element is not None and aggregation.flattens:
            return cls(element)
        return cls(value.type)


def _cast(value: Bound, shape: _Shape, to: str) -> Bound:
    """The input with single values of the type `to`."""
    if shape.single == to:
        return value
    target = f"list<{to}>" if value.type.startswith("list<") else to
    return Bound(f"CAST({value.sql} AS {duckdb_type(target)})", target, value.columns)


def _nested(
    draft: _Draft,
    aggregation: Aggregation,
    composed: Composition,
    value: Bound | None,
    filtered: str | None,
    shape: _Shape,
) -> tuple[tuple[Cell, ...], str]:
    """The feature's cells, inside others where it is a map or a list of values, and the type of the whole."""
    by = None if aggregation.by is None else _by(aggregation.by, draft.columns)
    if shape.outer is not None:
        cells = tuple(Cell(part.kind, ELEMENT, part.argument, (), part.edges) for part in composed.cells)
        # The list's own condition says which events count: inside a `by`, the key is taken from those alone.
        cells = (Cell(shape.outer, _input(draft, value, filtered), 0, cells),)
        types = None if value is None else map_types(value.type)
        type_name = f"map<{types[0]},{composed.type}>" if types else f"list<{composed.type}>"
    else:
        cells = tuple(_cell(draft, part, value, filtered) for part in composed.cells)
        type_name = composed.type
    if by is None:
        return cells, type_name
    if any(cell.input == EVERY_EVENT for cell in cells):
        key = Cell(CellKind.BY, _input(draft, by, None), 0, cells)
    else:
        key = Cell(CellKind.BY, _input(draft, by, filtered), 0, cells)
    return (key,), f"map<{by.type},{type_name}>"


def _by(text: str, columns: dict[str, str]) -> Bound:
    bound = bind(text, dict(columns))
    if bound.type not in KEY_SCALARS:
        raise DefinitionError(
            f"by= is one of {', '.join(KEY_SCALARS)}",
            got=f"{text!r} of type {bound.type}",
            hint="cast it, as in (x)::VARCHAR",
        )
    return bound


def _bound(expression: str | Udf | None, columns: dict[str, str]) -> Bound | None:
    if expression is None:
        return None
    if isinstance(expression, Udf):
        return expression.bind(columns)
    return bind(expression, dict(columns))


def _cell(draft: _Draft, part: Part, value: Bound | None, filtered: str | None) -> Cell:
    return Cell(part.kind, _input(draft, value if part.over_input else None, filtered), part.argument, (), part.edges)


def _number(draft: _Draft, cell: Cell) -> int:
    if cell not in draft.cells:
        draft.cells.append(cell)
    return draft.cells.index(cell)


def _input(draft: _Draft, value: Bound | None, filtered: str | None) -> int:
    if value is None and filtered is None:
        return EVERY_EVENT
    sql, type_name = ("TRUE", "bool") if value is None else (value.sql, value.type)
    if filtered is not None:
        sql = f"CASE WHEN {filtered} THEN {sql} END"
    entry = Input(sql, type_name)
    if entry not in draft.inputs:
        draft.inputs.append(entry)
    return draft.inputs.index(entry)


def _window_plan(draft: _Draft, window: AnyWindow | None) -> WindowPlan:
    kind = msgspec.structs.replace(_resolution(draft, window), span_us=0)
    index = next(i for i, r in enumerate(draft.resolutions) if msgspec.structs.replace(r, span_us=0) == kind)
    return WindowPlan(index, 0) if window is None else window.plan(index)


def _latest(draft: _Draft, ttl_us: int | None) -> None:
    """Each field is the value of the last event that has one, if that is the last event of all: else it is null."""
    view = draft.view
    draft.resolutions = [Resolution(LIFETIME, 0)]
    newest = _number(draft, Cell(CellKind.LAST, _input(draft, Bound("TRUE", "bool", frozenset()), None)))
    for name, sql in view.features.items():
        try:
            value = bind(str(sql), dict(draft.columns))
            kind = Last(str(sql)).compose(value.type).cells[0].kind
        except DefinitionError as error:
            raise error.at(f"field {name!r}") from None
        found = _number(draft, Cell(kind, _input(draft, value, None)))
        parameters: dict[str, int | float] = {} if ttl_us is None else {"ttl_us": ttl_us}
        draft.features.append(
            Feature(name, value.type, Finish.LATEST, (newest, found), WindowPlan(0, 0), f"latest {name}", parameters)
        )


def _condition(text: str, columns: dict[str, str]) -> Bound:
    if not isinstance(text, str) or not text.strip():
        raise DefinitionError("where= is SQL text", got=repr(text), hint='write where="dep_delay_min > 15"')
    bound = bind(text, dict(columns))
    if bound.type != "bool":
        raise DefinitionError(
            "where= is a condition", got=f"{text!r} of type {bound.type}", hint="compare it, as in x > 0"
        )
    return bound
