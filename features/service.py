"""Feature services: what one model reads, and what is logged of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from features.derived import DECLARED as DERIVED_VIEWS
from features.derived import DerivedView
from features.errors import DefinitionError
from features.html import service_html
from features.place import caller, check_name
from features.plan import Definitions, Selection, ServicePlan
from features.preview import Events, Frame, preview_service
from features.view import DECLARED as VIEWS
from features.view import FeatureView
from schemas.duration import parse_duration
from schemas.event import Column

Clock = Literal["wall", "event"]


class FeatureService:
    """The features that one model reads, in order: views (all their features) or selections `view["a", "b"]`.

    `log`: the share of entities whose vectors are logged, 0 to 1. `clock="event"`: the instant is that of the data
    (replays, tests), not of the wall. `max_lag`: answers read from older state say so. Raises DefinitionError.
    """

    def __init__(
        self,
        name: str,
        views: Sequence[FeatureView | DerivedView | Selection],
        *,
        log: float = 0.0,
        clock: Clock = "wall",
        max_lag: str | None = None,
        owner: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.place = caller()
        try:
            self.plan = ServicePlan(
                name=check_name("a service", name),
                selections=_selections(views),
                log=_share(log),
                clock=_clock(clock),
                max_lag_us=_lag_us(max_lag),
                owner=owner,
                description=description,
                tags=dict(tags or {}),
            )
        except DefinitionError as error:
            raise error.at(f"{self.place}: service {name!r}") from None
        self.name = name

    def preview(self, rows: Frame, events: Events) -> Frame:
        """`rows` (join keys, request columns, event_timestamp) with the service's features: features/preview.py."""
        return preview_service(self.plan, VIEWS, DERIVED_VIEWS, rows, events)

    def _repr_html_(self) -> str:
        return service_html(self.plan)

    def __repr__(self) -> str:
        lines = [f"  {each.view}: {', '.join(each.features)}" for each in self.plan.selections]
        return f"FeatureService({self.name!r})\n" + "\n".join(lines)


def feature_columns(definitions: Definitions, service: ServicePlan) -> list[Column]:
    """The service's features in order, as columns `view__feature`; every one may be null."""
    types: dict[tuple[str, str], str] = {}
    for view in definitions.views.values():
        types |= {(view.name, feature.name): feature.type for feature in view.features}
    for derived in definitions.derived.values():
        types |= {(derived.name, feature.name): feature.type for feature in derived.features}
    return [
        Column(f"{selection.view}__{feature}", types[selection.view, feature], True)
        for selection in service.selections
        for feature in selection.features
    ]


def join_key_columns(definitions: Definitions, service: ServicePlan) -> list[Column]:
    """The join keys that a request to the service must bring, each once."""
    keys = {key.name: key for view in definitions.needed(service) for key in definitions.views[view].keys}
    return [Column(key.name, key.type, True) for key in keys.values()]


def request_columns(definitions: Definitions, service: ServicePlan) -> list[Column]:
    """The request-time columns of the service's derived views, each once."""
    derived = [definitions.derived[s.view] for s in service.selections if s.view in definitions.derived]
    return list({column.name: column for plan in derived for column in plan.request}.values())


def _selections(views: Sequence[FeatureView | DerivedView | Selection]) -> tuple[Selection, ...]:
    selections = []
    for each in views:
        if isinstance(each, FeatureView | DerivedView):
            selections.append(Selection(each.name, tuple(each.features)))
        elif isinstance(each, Selection):
            selections.append(each)
        else:
            raise DefinitionError(
                "a service lists views", got=repr(each), hint='write [airport_delays, carrier_delays["delay_mean_6h"]]'
            )
    pairs = [(each.view, feature) for each in selections for feature in each.features]
    twice = sorted({f"{view}:{feature}" for view, feature in pairs if pairs.count((view, feature)) > 1})
    if twice:
        raise DefinitionError("a service names each feature once", got=f"twice: {', '.join(twice)}")
    if not pairs:
        raise DefinitionError("a service reads at least one feature", hint="FeatureService(name, [airport_delays])")
    return tuple(selections)


def _share(log: float) -> float:
    if isinstance(log, bool) or not isinstance(log, int | float) or not 0 <= log <= 1:
        raise DefinitionError("log= is a share of entities, 0 to 1", got=repr(log), hint="log=0.01")
    return float(log)


def _clock(clock: Clock) -> Clock:
    if clock not in ("wall", "event"):
        raise DefinitionError('clock= is "wall" or "event"', got=repr(clock))
    return clock


def _lag_us(max_lag: str | None) -> int | None:
    if max_lag is None:
        return None
    try:
        return parse_duration(max_lag)
    except (ValueError, TypeError) as error:
        raise DefinitionError("max_lag= is a duration", got=repr(max_lag), hint=f'max_lag="5m" ({error})') from None
