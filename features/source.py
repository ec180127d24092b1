"""What a view reads: an event type, several as one (Union), or one with another view's columns (Enriched)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from features.enriched import Enriched
from features.errors import DefinitionError
from features.expression import bind
from features.plan import Source
from schemas.event import Column, Event
from schemas.types import duckdb_type

COLUMN_HINT = 'write Union({Departure: {"station": "origin"}, Arrival: {"station": "dest"}})'


class Union:
    """Several event types read as one: each name is an expression over each of the events.

    The order in which they are listed decides ties of equal instants (DESIGN §2). Raises DefinitionError where the
    events do not map the same names, or map one to different types.
    """

    def __init__(self, events: Mapping[type[Event] | Enriched, Mapping[str, str]]) -> None:
        if not isinstance(events, Mapping) or not events:
            raise DefinitionError("Union() maps event types to columns", got=repr(events), hint=COLUMN_HINT)
        self.events = {_made(event): dict(mapping) for event, mapping in events.items()}
        names = [frozenset(mapping) for mapping in self.events.values()]
        if len(set(names)) != 1 or not names[0]:
            raise DefinitionError(
                "the events of a Union have the same columns",
                got="; ".join(f"{e.__name__}: {', '.join(m) or 'none'}" for e, m in self.events.items()),
                hint=COLUMN_HINT,
            )

    @property
    def __name__(self) -> str:
        return f"Union({', '.join(event.__name__ for event in self.events)})"

    def __repr__(self) -> str:
        return self.__name__

    def sources(self) -> tuple[Source, ...]:
        """Each event with its mapping, cast to the types that the columns have in the Union."""
        types = {column.name: column.type for column in self.columns()}
        return tuple(
            Source(
                event.spec(),
                {name: f"CAST({self._bound(event, name)[0]} AS {duckdb_type(types[name])})" for name in mapping},
            )
            for event, mapping in self.events.items()
        )

    def columns(self) -> tuple[Column, ...]:
        """The columns that expressions may name; every one may be null."""
        names = next(iter(self.events.values()))
        return tuple(Column(name, self._type(name), True) for name in names)

    def _type(self, name: str) -> str:
        types = {event.__name__: self._bound(event, name)[1] for event in self.events}
        found = set(types.values())
        if found == {"int64", "float64"}:
            return "float64"
        if len(found) != 1:
            raise DefinitionError(
                "a column of a Union has one type",
                where=name,
                got=", ".join(f"{type_name} in {event}" for event, type_name in types.items()),
                hint="cast one, as in (x)::DOUBLE",
            )
        return found.pop()

    def _bound(self, event: type[Event], name: str) -> tuple[str, str]:
        columns = {column.name: column.type for column in event.spec().columns}
        try:
            bound = bind(self.events[event][name], columns)
        except DefinitionError as error:
            raise error.at(f"{event.__name__}: {name!r}") from None
        return bound.sql, bound.type


AnySource: TypeAlias = type[Event] | Union


def sources_of(source: AnySource) -> tuple[Source, ...]:
    """The event types of a source, in the order of their ties."""
    return source.sources() if isinstance(source, Union) else (Source(source.spec()),)


def columns_of(source: AnySource) -> tuple[Column, ...]:
    """The columns that a view's expressions may name."""
    return source.columns() if isinstance(source, Union) else source.spec().columns


def events_of(source: AnySource) -> tuple[type[Event], ...]:
    """The event types that a source reads."""
    return tuple(source.events) if isinstance(source, Union) else (source,)


def check_source(source: object) -> AnySource:
    """The source, if it is one; of an Enriched the event type that it makes. Raises DefinitionError otherwise."""
    if isinstance(source, Enriched):
        return source.made
    if isinstance(source, Union):
        for event in source.events:
            if not (isinstance(event, type) and issubclass(event, Event)):
                raise DefinitionError("Union() takes event types", got=repr(event), hint=COLUMN_HINT)
        return source
    if isinstance(source, type) and issubclass(source, Event):
        return source
    raise DefinitionError("source= is an event type", got=repr(source), hint="write source=Flight")


def _made(event: type[Event] | Enriched) -> type[Event]:
    return event.made if isinstance(event, Enriched) else event
