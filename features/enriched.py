"""`Enriched(Flight, plane_facts)`: an event type of its own, each event with what a view answered at its own instant.

Such events stand on a topic of their own, written once by a worker (stream/enrich.py), and stream and batch both read
that topic: what was known is thereby the same for both. Topic and event type carry the first 8 digits of the view's
fingerprint: under another meaning of the view they are others.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol, cast, runtime_checkable

import msgspec
from pydantic import Field

from features.errors import DefinitionError
from features.plan import ViewPlan
from schemas.enriched import ANSWERS, answer_column
from schemas.event import Enrichment, Event
from schemas.types import decimal_digits, decimal_scale, element_type, is_decimal, map_types

HINT = "write source=Enriched(Flight, plane_facts)"
PREFIX = "enriched."
_MADE: dict[tuple[type[Event], str, str], type[Event]] = {}
"""By event, view and topic: two views over one Enriched read the same events."""
_MADE_OF: dict[type[Event], Enriched] = {}


@runtime_checkable
class View(Protocol):
    """A declared view, as far as events are enriched by it."""

    name: str
    plan: Any


class Enriched:
    """`event` with the columns `<view>__<feature>` of a view and `<view>_answer`, which says how they came about.

    `made` is the event type that results. The view is found by the event's columns of its join keys' names. `topic=`
    names another topic than `enriched.<topic>.<view>.<digits>`. Raises DefinitionError for what can't be enriched.
    """

    def __init__(self, event: type[Event] | Enriched, view: View, *, topic: str | None = None) -> None:
        self.event = _event_type(event)
        self.view = view
        self.plan = _plan_of(view)
        _check_keys(self.event, self.plan)
        digits = self.plan.fingerprint[:8]
        base = str(self.event.spec().topic).removeprefix(PREFIX)
        self.topic = f"{PREFIX}{base}.{view.name}.{digits}" if topic is None else topic
        key = (self.event, self.plan.fingerprint, self.topic)
        if key not in _MADE:
            _MADE[key] = self._make(f"{self.event.__name__}_{view.name}_{digits}")
            _MADE_OF[_MADE[key]] = self
        self.made = _MADE[key]

    def __repr__(self) -> str:
        return f"Enriched({self.event.__name__}, {self.view.name})"

    def _make(self, name: str) -> type[Event]:
        spec = self.event.spec()
        columns = {column.name: (column.type, column.nullable) for column in spec.columns}
        added = {f"{self.view.name}__{feature.name}": (feature.type, True) for feature in self.plan.features}
        answer = answer_column(self.view.name)
        if taken := sorted(columns.keys() & {*added, answer}):
            raise DefinitionError(
                f"{self.event.__name__} has columns named like what is added", got=", ".join(taken), hint="rename them"
            )
        annotations = {column: _annotation(*what) for column, what in (columns | added).items()}
        body = {
            "__annotations__": annotations | {answer: Literal[ANSWERS]},
            "__module__": self.event.__module__,
            "__qualname__": name,
            "__doc__": f"{self.event.__name__}, with what {self.view.name} answered at its own instant.",
        }
        made = cast(type[Event], type(name, (Event,), body, topic=self.topic, time=spec.time, key=list(spec.key)))
        features = tuple(feature.name for feature in self.plan.features)
        enrichment = Enrichment(self.event.__name__, self.view.name, self.plan.fingerprint, features)
        # Copies are dropped before they are enriched: on this topic there are none.
        made.__event_spec__ = msgspec.structs.replace(
            made.spec(),
            max_future_us=spec.max_future_us,
            enriched=enrichment,
        )
        return made


def enriched_of(event: type[Event]) -> Enriched | None:
    """What an event type was made of; None where it was declared by hand."""
    return _MADE_OF.get(event)


def _event_type(event: object) -> type[Event]:
    found = event.made if isinstance(event, Enriched) else event
    if not (isinstance(found, type) and issubclass(found, Event)):
        raise DefinitionError("Enriched() takes an event type and a view", got=repr(event), hint=HINT)
    if found.spec().topic is None:
        raise DefinitionError(
            "events are enriched as they come: Enriched() takes an event type of a topic",
            got=f"{found.__name__} of a table or of files",
            hint="join it where the table is made, or read both views in a service",
        )
    return found


def _plan_of(view: object) -> ViewPlan:
    plan = getattr(view, "plan", None)
    if not isinstance(view, View) or not isinstance(plan, ViewPlan):
        raise DefinitionError(
            "Enriched() takes a FeatureView or a LatestView: what an entity's key alone finds in the online store",
            got=repr(view),
            hint=HINT,
        )
    return plan


def _check_keys(event: type[Event], plan: ViewPlan) -> None:
    types = {column.name: column.type for column in event.spec().columns}
    for key in plan.keys:
        if types.get(key.name) != key.type:
            raise DefinitionError(
                f"{event.__name__} has the join keys of view {plan.name!r}",
                got=f"{key.name!r} of type {types[key.name]}" if key.name in types else f"no {key.name!r}",
                hint=f"it needs {key.name!r} of type {key.type}",
            )


_PYTHON: dict[str, Any] = {
    "bool": bool,
    "int64": int,
    "float64": float,
    "string": str,
    "bytes": bytes,
    "timestamp": datetime,
    "date": date,
}


def _annotation(type_name: str, nullable: bool = False) -> Any:
    """A Python annotation that stands for the type: the inverse of schemas.types.from_annotation."""
    if nullable:
        return _annotation(type_name) | None
    if is_decimal(type_name):
        digits, places = decimal_digits(type_name), decimal_scale(type_name)
        return Annotated[Decimal, Field(max_digits=digits, decimal_places=places)]
    if (element := element_type(type_name)) is not None:
        inner: Any = _annotation(element)
        return list[inner]
    if (types := map_types(type_name)) is not None:
        key: Any = _annotation(types[0])
        item: Any = _annotation(types[1])
        return dict[key, item]
    return _PYTHON[type_name]
