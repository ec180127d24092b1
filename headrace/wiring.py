"""What a running process needs: the applied definitions, the classes that decode their events, siblings handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from features.applied import load_applied
from features.plan import Definitions
from features.udf import calls_udf
from headrace.definitions.load import load
from schemas.errors import ConfigError, NotReady, RequestError
from schemas.event import Event, EventSpec
from schemas.settings import ConnectionSettings


@dataclass(frozen=True)
class Project:
    """The applied definitions, and the event classes by name."""

    definitions: Definitions
    events: Mapping[str, type[Event]]


def applied_definitions(settings: ConnectionSettings) -> Definitions:
    """What `headrace apply` has applied. Raises NotReady where nothing has been."""
    found = load_applied(settings.registry_address(), settings.project)
    if found is None:
        raise NotReady(
            "nothing has been applied yet",
            where=f"project {settings.project!r}",
            got=f"no definitions in {settings.home}",
            hint="run `headrace apply`",
        )
    return found


def evaluable_definitions(settings: ConnectionSettings) -> Definitions:
    """The applied definitions in a process that computes their features: the udfs that they call are imported."""
    definitions = applied_definitions(settings)
    if any(calls_udf(each.sql) for view in definitions.views.values() for each in view.inputs):
        load(settings.definitions)
    return definitions


def event_types_of(folder: Path) -> Mapping[str, type[Event]]:
    """The event types that a folder declares, by name: what a task in another process decodes with."""
    return load(folder).events


def open_project(settings: ConnectionSettings) -> Project:
    """The applied definitions with the classes that decode their events.

    Raises NotReady where nothing is applied, and ConfigError where the definitions' folder no longer declares an
    applied event type as it was applied.
    """
    definitions = applied_definitions(settings)
    events = load(settings.definitions).events
    for name, spec in definitions.events.items():
        if name not in events:
            raise ConfigError(
                f"the applied event type {name!r} is no longer declared",
                where=str(settings.definitions),
                got=", ".join(events) or "no event",
                hint="run `headrace apply`, or name the folder in HEADRACE_DEFINITIONS",
            )
        if _meaning(events[name].spec()) != _meaning(spec):
            raise ConfigError(
                f"event type {name!r} is declared otherwise than it was applied",
                where=str(settings.definitions),
                hint="see `headrace plan`, then run `headrace apply`",
            )
    return Project(definitions, {name: events[name] for name in definitions.events})


def _meaning(spec: EventSpec) -> EventSpec:
    return msgspec.structs.replace(spec, description="")


def check_view(definitions: Definitions, view: str) -> None:
    """Raises RequestError where no such view is applied."""
    if view not in definitions.views:
        known = ", ".join(definitions.views) or "none"
        raise RequestError("no such view", got=repr(view), hint=f"applied views are: {known}")
