"""A declared view -> its plan: a tuple of passes over one draft, in the order in which they stand in PASSES."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from features.aggregations import Aggregation
from features.errors import DefinitionError
from features.expression import Bound, bind
from features.plan import (
    LIFETIME,
    Cell,
    CellKind,
    Feature,
    Input,
    Resolution,
    Source,
    ViewPlan,
    WindowPlan,
)
from features.window import Window, check_tiles, span_us
from schemas.event import Column
from schemas.row import RESOLUTIONS_MAX

if TYPE_CHECKING:
    from features.view import FeatureView

KEY_TYPES = ("string", "int64", "bool")
EVERY_EVENT = -1
MEANING_VERSION = 1
"""Part of every fingerprint: raised when this code gives the same declaration another meaning or layout."""


@dataclass
class _Draft:
    view: FeatureView
    columns: dict[str, str] = field(default_factory=dict)
    keys: tuple[Column, ...] = ()
    where: str | None = None
    inputs: list[Input] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)


def plan_view(view: FeatureView) -> ViewPlan:
    """The plan of a view; `storage_id` is left empty, since it depends on the project. Raises DefinitionError."""
    draft = _Draft(view)
    for run in PASSES:
        run(draft)
    spec = view.source.spec()
    plan = ViewPlan(
        name=view.name,
        fingerprint="",
        storage_id="",
        entities=tuple(entity.name for entity in view.entities),
        keys=draft.keys,
        sources=(Source(spec),),
        where=draft.where,
        inputs=tuple(draft.inputs),
        cells=tuple(draft.cells),
        resolutions=tuple(draft.resolutions),
        features=tuple(draft.features),
        shards=view.shards,
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
    features = [(f.name, f.type, f.finish, f.cells, f.window) for f in plan.features]
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
    )
    return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:32]


def with_project(plan: ViewPlan, project: str) -> ViewPlan:
    """The plan with the `storage_id` under which its state lives in Redis."""
    digest = hashlib.sha256(f"{project}\n{plan.name}\n{plan.fingerprint}".encode()).hexdigest()
    return msgspec.structs.replace(plan, storage_id=digest[:12])


def _read_columns(draft: _Draft) -> None:
    draft.columns = {column.name: column.type for column in draft.view.source.spec().columns}


def _resolve_keys(draft: _Draft) -> None:
    source = draft.view.source
    columns = {column.name: column for column in source.spec().columns}
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
    windows = [_window(aggregation) for aggregation in draft.view.features.values()]
    check_tiles([window for window in windows if window is not None])
    max_future_us = draft.view.source.spec().max_future_us
    spans: dict[int, int] = {}
    for window in windows:
        hop_us = LIFETIME if window is None else window.hop_us
        span = 0 if window is None else span_us(window.size_us, window.ending_us, hop_us, max_future_us)
        spans[hop_us] = max(spans.get(hop_us, 0), span)
    if len(spans) > RESOLUTIONS_MAX:
        raise DefinitionError(f"a view has at most {RESOLUTIONS_MAX} hops", got=str(len(spans)), hint="split the view")
    draft.resolutions = [Resolution(hop_us, span) for hop_us, span in sorted(spans.items())]


def _compose(draft: _Draft) -> None:
    for name, aggregation in draft.view.features.items():
        try:
            draft.features.append(_feature(draft, name, aggregation))
        except DefinitionError as error:
            raise error.at(f"feature {name!r}") from None


PASSES = (_read_columns, _resolve_keys, _bind_where, _choose_tiles, _compose)


def _feature(draft: _Draft, name: str, aggregation: Aggregation) -> Feature:
    filtered = None if aggregation.where is None else _condition(aggregation.where, draft.columns).sql
    value = None if aggregation.expression is None else bind(aggregation.expression, dict(draft.columns))
    composed = aggregation.compose(None if value is None else value.type)
    cells = tuple(_cell(draft, kind, value if over_input else None, filtered) for kind, over_input in composed.cells)
    return Feature(name, composed.type, composed.finish, cells, _window_plan(draft, aggregation), repr(aggregation))


def _cell(draft: _Draft, kind: CellKind, value: Bound | None, filtered: str | None) -> int:
    cell = Cell(kind, _input(draft, value, filtered))
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


def _window_plan(draft: _Draft, aggregation: Aggregation) -> WindowPlan:
    window = _window(aggregation)
    hop_us = LIFETIME if window is None else window.hop_us
    index = next(i for i, resolution in enumerate(draft.resolutions) if resolution.hop_us == hop_us)
    return WindowPlan(index, 0) if window is None else WindowPlan(index, window.size_us, window.ending_us)


def _window(aggregation: Aggregation) -> Window | None:
    return aggregation.over if isinstance(aggregation.over, Window) else None


def _condition(text: str, columns: dict[str, str]) -> Bound:
    if not isinstance(text, str) or not text.strip():
        raise DefinitionError("where= is SQL text", got=repr(text), hint='write where="dep_delay_min > 15"')
    bound = bind(text, dict(columns))
    if bound.type != "bool":
        raise DefinitionError(
            "where= is a condition", got=f"{text!r} of type {bound.type}", hint="compare it, as in x > 0"
        )
    return bound
