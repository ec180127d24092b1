"""What differs between what is applied and what is declared, in words; and what may not change in silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from features.plan import Definitions, DerivedPlan, EntityPlan, ServicePlan, ViewPlan
from schemas.errors import ChangedMeaning, DefinitionError
from schemas.event import EventSpec


class Action(StrEnum):
    """What `apply` would do with a declaration."""

    ADD = "add"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


SomePlan = TypeVar("SomePlan", EventSpec, EntityPlan, ViewPlan, DerivedPlan, ServicePlan)


@dataclass(frozen=True)
class Change:
    """One declaration that differs. `new_meaning`: its values would differ under the same name."""

    action: Action
    kind: str
    name: str
    details: tuple[str, ...] = ()
    new_meaning: bool = False


@dataclass(frozen=True)
class Diff:
    """All that differs, in the order in which it is applied."""

    changes: tuple[Change, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def replaced_views(self) -> tuple[str, ...]:
        """The windowed views whose state is brought up anew."""
        return tuple(each.name for each in self.changes if each.kind == "view" and each.action is Action.REPLACE)


def compare(applied: Definitions | None, declared: Definitions, replace: Collection[str] = ()) -> Diff:
    """The differences. Raises DefinitionError where `replace` names a view that isn't declared."""
    old = applied or Definitions(project=declared.project, events={}, entities={}, views={}, derived={}, services={})
    unknown = sorted(set(replace) - declared.views.keys() - declared.derived.keys())
    if unknown:
        known = ", ".join([*declared.views, *declared.derived])
        raise DefinitionError("--replace names a declared view", got=", ".join(unknown), hint=f"there are: {known}")
    changes = [
        *_changes("event", old.events, declared.events, _event_details, _event_meaning),
        *_changes("entity", old.entities, declared.entities, _fields("join_key", "type"), _entity_meaning),
        *_changes("view", old.views, declared.views, _view_details, _fingerprint),
        *_changes("derived view", old.derived, declared.derived, _derived_details, _derived_meaning),
        *_changes("service", old.services, declared.services, _service_details, lambda service: None),
    ]
    return Diff(tuple(_replaced(change) if change.name in replace else change for change in changes))


def refuse_new_meanings(diff: Diff) -> None:
    """Raises ChangedMeaning for what may only be changed by --replace, or not at all."""
    refused = [change for change in diff.changes if change.new_meaning and change.action is Action.CHANGE]
    if not refused:
        return
    first = refused[0]
    views = [change.name for change in refused if change.kind in ("view", "derived view")]
    hint = "give the changed one a new name"
    if views:
        flags = " ".join(f"--replace {name}" for name in views)
        hint += f", or run `headrace apply {flags}`: the new one is brought up beside the old and takes over"
    raise ChangedMeaning(
        "a registered name keeps its meaning",
        where=", ".join(f"{change.kind} {change.name!r}" for change in refused),
        got="; ".join(first.details) or "another meaning",
        hint=hint,
    )


def _changes(
    kind: str,
    old: Mapping[str, SomePlan],
    new: Mapping[str, SomePlan],
    details: Callable[[SomePlan, SomePlan], list[str]],
    meaning: Callable[[SomePlan], Any],
) -> list[Change]:
    changes = [Change(Action.ADD, kind, name, tuple(_summary(plan))) for name, plan in new.items() if name not in old]
    for name, plan in new.items():
        if name in old and old[name] != plan:
            found = details(old[name], plan) + _fields("owner", "description", "tags")(old[name], plan)
            changed = meaning(old[name]) != meaning(plan)
            changes.append(Change(Action.CHANGE, kind, name, tuple(found), changed))
    changes += [Change(Action.REMOVE, kind, name) for name in old if name not in new]
    return changes


def _replaced(change: Change) -> Change:
    if change.kind in ("view", "derived view") and change.new_meaning:
        return Change(Action.REPLACE, change.kind, change.name, change.details, True)
    return change


def _summary(plan: Any) -> list[str]:
    """What an added declaration is, in a line or a few."""
    if isinstance(plan, EventSpec):
        place = f"topic {plan.topic}" if plan.topic else f"table {plan.table}" if plan.table else f"files {plan.path}"
        return [f"{place}: {', '.join(column.name for column in plan.columns)}"]
    if isinstance(plan, EntityPlan):
        return [f"join key {plan.join_key} ({plan.type})"]
    if isinstance(plan, ViewPlan):
        return [_feature_line(feature.name, feature.declared, feature.type) for feature in plan.features]
    if isinstance(plan, DerivedPlan):
        return [_feature_line(feature.name, feature.sql, feature.type) for feature in plan.features]
    return [f"{selection.view}: {', '.join(selection.features)}" for selection in plan.selections]


def _feature_line(name: str, declared: str, type_name: str) -> str:
    return f"{name} = {declared}: {type_name}"


def _fields(*names: str) -> Callable[[Any, Any], list[str]]:
    def compared(old: Any, new: Any) -> list[str]:
        return [
            f"{name}: {getattr(old, name)!r} -> {getattr(new, name)!r}"
            for name in names
            if getattr(old, name, None) != getattr(new, name, None)
        ]

    return compared


def _event_details(old: EventSpec, new: EventSpec) -> list[str]:
    lines = _fields("topic", "table", "path", "time", "key", "id", "dedupe_within_us", "max_future_us", "format")(
        old, new
    )
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    lines += [f"column {name} ({after[name].type}) is new" for name in after if name not in before]
    lines += [f"column {name} is gone" for name in before if name not in after]
    lines += [
        f"column {name}: {_column(before[name])} -> {_column(after[name])}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    return lines


def _column(column: Any) -> str:
    return f"{column.type}{' or null' if column.nullable else ''}"


def _event_meaning(event: EventSpec) -> Any:
    """Columns may come and go, the log may not move. A column's type is checked by its table."""
    return (event.topic, event.table, event.path)


def _entity_meaning(entity: EntityPlan) -> Any:
    return entity.join_key


def _fingerprint(view: ViewPlan) -> Any:
    return view.fingerprint


def _view_details(old: ViewPlan, new: ViewPlan) -> list[str]:
    lines = _fields("kind", "entities", "where", "shards")(old, new)
    if [source.event.name for source in old.sources] != [source.event.name for source in new.sources]:
        lines.append(f"source: {_sources(old)} -> {_sources(new)}")
    before = {feature.name: feature for feature in old.features}
    after = {feature.name: feature for feature in new.features}
    lines += [f"feature {f.name} is new: {f.declared}" for f in new.features if f.name not in before]
    lines += [f"feature {f.name} is gone: {f.declared}" for f in old.features if f.name not in after]
    for name in (name for name in after if name in before):
        was, now = before[name], after[name]
        if (was.declared, was.type, was.finish) != (now.declared, now.type, now.finish):
            lines.append(f"feature {name}: {was.declared}: {was.type} -> {now.declared}: {now.type}")
    if not lines and old.fingerprint != new.fingerprint:
        lines.append("its inputs or the layout of its state")
    return lines


def _sources(view: ViewPlan) -> str:
    return " and ".join(source.event.name for source in view.sources)


def _derived_meaning(view: DerivedPlan) -> Any:
    """Its own words: what its inputs mean is said of them."""
    return (view.inputs, view.request, view.features)


def _derived_details(old: DerivedPlan, new: DerivedPlan) -> list[str]:
    lines = _fields("inputs", "request")(old, new)
    before = {feature.name: feature for feature in old.features}
    after = {feature.name: feature for feature in new.features}
    lines += [f"feature {f.name} is new: {f.sql}" for f in new.features if f.name not in before]
    lines += [f"feature {f.name} is gone: {f.sql}" for f in old.features if f.name not in after]
    lines += [
        f"feature {name}: {before[name].sql}: {before[name].type} -> {after[name].sql}: {after[name].type}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    if not lines and old.fingerprint != new.fingerprint:
        lines.append("its inputs change")
    return lines


def _service_details(old: ServicePlan, new: ServicePlan) -> list[str]:
    before = [f"{selection.view}:{name}" for selection in old.selections for name in selection.features]
    after = [f"{selection.view}:{name}" for selection in new.selections for name in selection.features]
    lines = [f"reads {name} too" for name in after if name not in before]
    lines += [f"no longer reads {name}" for name in before if name not in after]
    if not lines and before != after:
        lines.append("the order of its features")
    return lines + _fields("log", "clock", "max_lag_us")(old, new)
