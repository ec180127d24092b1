"""Declarations of a project -> one Definitions document, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from features.derived import DerivedView
from features.enriched import enriched_of
from features.errors import DefinitionError
from features.plan import Definitions, EntityPlan, Selection
from features.service import FeatureService
from features.view import Entity, FeatureView
from features.view_plan import with_project
from schemas.event import Event

Named = TypeVar("Named", Entity, FeatureView, DerivedView, FeatureService)


def is_declaration(value: object) -> bool:
    """True for what `compile_definitions` takes."""
    if isinstance(value, type):
        return issubclass(value, Event) and value is not Event
    return isinstance(value, Entity | FeatureView | DerivedView | FeatureService)


def compile_definitions(project: str, declared: Iterable[object]) -> Definitions:
    """The project's definitions. What a view or a service refers to is taken along, listed or not.

    Raises DefinitionError for two declarations of one kind and name (naming both places), for two event types on one
    topic, and for a service over a view that isn't declared.
    """
    found = _Found()
    for value in declared:
        found.add(value)
    events = {event.__name__: event.spec() for event in found.events.values()}
    _one_event_a_topic(found.events.values())
    views = {view.name: with_project(view.plan, project) for view in found.views.values()}
    derived = {view.name: view.plan for view in found.derived.values()}
    definitions = Definitions(
        project=project,
        events=events,
        entities={entity.name: _entity_plan(entity, found.views) for entity in found.entities.values()},
        views=views,
        derived=derived,
        services={service.name: service.plan for service in found.services.values()},
    )
    for service in found.services.values():
        _check_service(definitions, service)
    return definitions


def event_types(declared: Iterable[object]) -> dict[str, type[Event]]:
    """The event classes among the declarations and below them, by name: what decodes. Raises DefinitionError."""
    found = _Found()
    for value in declared:
        found.add(value)
    return dict(found.events)


class _Found:
    """What has been declared, each kind by name."""

    def __init__(self) -> None:
        self.events: dict[str, type[Event]] = {}
        self.entities: dict[str, Entity] = {}
        self.views: dict[str, FeatureView] = {}
        self.derived: dict[str, DerivedView] = {}
        self.services: dict[str, FeatureService] = {}

    def add(self, value: object) -> None:
        if isinstance(value, type) and issubclass(value, Event):
            self._event(value)
        elif isinstance(value, Entity):
            _put(self.entities, "entity", value)
        elif isinstance(value, FeatureView):
            self._view(value)
        elif isinstance(value, DerivedView):
            self._derived(value)
        elif isinstance(value, FeatureService):
            _put(self.services, "service", value)
        else:
            raise DefinitionError(
                "only events, entities, views and services can be defined", got=repr(value), hint="leave it out"
            )

    def _event(self, event: type[Event]) -> None:
        known = self.events.setdefault(event.__name__, event)
        if known is not event:
            raise DefinitionError(
                f"two event types are named {event.__name__!r}",
                got=f"{known.__module__} and {event.__module__}",
                hint="rename one",
            )
        source = enriched_of(event)
        if source is not None:
            self._event(source.event)
            self.add(source.view)

    def _view(self, view: FeatureView) -> None:
        for event in view.events:
            self._event(event)
        for entity in view.entities:
            _put(self.entities, "entity", entity)
        if view.name in self.derived:
            raise _twice("view", view, self.derived[view.name])
        _put(self.views, "view", view)

    def _derived(self, view: DerivedView) -> None:
        for each in view.views:
            self._view(each)
        if view.name in self.views:
            raise _twice("view", view, self.views[view.name])
        _put(self.derived, "view", view)


def _put(known: dict[str, Named], kind: str, value: Named) -> None:
    if known.setdefault(value.name, value) is not value:
        raise _twice(kind, value, known[value.name])


def _twice(
    kind: str,
    one: Entity | FeatureView | DerivedView | FeatureService,
    other: Entity | FeatureView | DerivedView | FeatureService,
) -> DefinitionError:
    places = sorted((str(one.place), str(other.place)))
    return DefinitionError(
        f"two declarations of {kind} {one.name!r}", got=" and ".join(places), hint="rename one, or import the other"
    )


def _one_event_a_topic(events: Iterable[type[Event]]) -> None:
    topics: dict[str, type[Event]] = {}
    for event in events:
        topic = event.spec().topic
        if topic is not None and topics.setdefault(topic, event) is not event:
            raise DefinitionError(
                f"two event types read topic {topic!r}",
                got=f"{topics[topic].__name__} and {event.__name__}",
                hint="a topic holds one event type: declare one with the columns of both",
            )


def _entity_plan(entity: Entity, views: Mapping[str, FeatureView]) -> EntityPlan:
    types: dict[str, FeatureView] = {}
    for view in views.values():
        if entity in view.entities:
            types |= {key.type: types.get(key.type, view) for key in view.plan.keys if key.name == entity.join_key}
    if len(types) > 1:
        raise DefinitionError(
            f"the join key {entity.join_key!r} of entity {entity.name!r} has one type in all views",
            where=str(entity.place),
            got=" and ".join(f"{type_} in view {view.name!r} ({view.place})" for type_, view in types.items()),
            hint="declare an entity for each type, or give the events' columns the same one",
        )
    return EntityPlan(
        name=entity.name,
        join_key=entity.join_key,
        type=next(iter(types), "string"),
        description=entity.description,
        owner=entity.owner,
        tags=entity.tags,
    )


def _check_service(definitions: Definitions, service: FeatureService) -> None:
    where = f"{service.place}: service {service.name!r}"
    for selection in service.plan.selections:
        if selection.view not in definitions.views and selection.view not in definitions.derived:
            raise DefinitionError(
                "no such view", where=where, got=repr(selection.view), hint=_import_hint(selection, definitions)
            )
    types: dict[str, str] = {}
    for view in definitions.needed(service.plan):
        for key in definitions.views[view].keys:
            if types.setdefault(key.name, key.type) != key.type:
                raise DefinitionError(
                    f"the views of a service agree on the type of join key {key.name!r}",
                    where=where,
                    got=f"{types[key.name]} and {key.type}",
                    hint="rename one of the join keys",
                )


def _import_hint(selection: Selection, definitions: Definitions) -> str:
    known = ", ".join([*definitions.views, *definitions.derived])
    return f"define or import it in the same folder; there are: {known}"
