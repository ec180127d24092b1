"""What a request reads, worked out once for a service or a list of features and kept for the next request.

A Reading is a function of the applied definitions alone; `Readings` keeps those of one version of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from features.cells import is_fixed
from features.plan import Definitions, DerivedPlan, ServicePlan, ViewPlan
from schemas.errors import NotFound, RequestError
from schemas.event import Column
from serving.places import AllPlaces, Places
from serving.quick import Shape, is_quick

What: TypeAlias = str | tuple[str, ...]
"""A service's name, or references 'view:feature'."""

_T = TypeVar("_T")

READINGS_KEPT_MAX = 256
"""Different lists of features whose readings are kept; clients ask for the same few again and again."""


class Output(NamedTuple):
    """A feature of the answer: from view or derived view number `source`, there feature number `at`."""

    view: str
    feature: str
    type: str
    source: int
    at: int
    derived: bool

    @property
    def full_name(self) -> str:
        return f"{self.view}__{self.feature}"


class ViewRead:
    """The part of a reading that concerns one view.

    `quick` and `slow` are the numbers of the features that a Shape reads, and of those that features/merge.py reads.
    """

    def __init__(self, plan: ViewPlan, features: tuple[str, ...]) -> None:
        self.plan = plan
        self.features = features
        planned = [plan.feature(name) for name in features]
        self.quick = [number for number, feature in enumerate(planned) if is_quick(plan, feature)]
        self.slow = [number for number, feature in enumerate(planned) if not is_quick(plan, feature)]
        self.shape = Shape(plan, [planned[number] for number in self.quick])
        self.hashed = not all(is_fixed(plan.cells[cell]) for feature in planned for cell in feature.cells)
        """Some feature is of cells of variable size, which stand in a HASH beside the row."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Everything about a request but its entities. One is equal to itself alone."""

    project: str
    service: ServicePlan | None
    views: tuple[ViewRead, ...]
    places: tuple[tuple[Places, tuple[int, ...]], ...]
    """Where rows stand, with the numbers of the views that they are of."""
    derived: tuple[DerivedPlan, ...]
    outputs: tuple[Output, ...]
    join_keys: tuple[Column, ...]
    request: tuple[Column, ...]
    echoed: frozenset[str]
    """Join keys of the project: those that a request brings stand in the answer, as in Feast."""
    aliases: dict[str, str]
    """Entity names, which Feast takes for join keys."""

    @property
    def clock(self) -> Literal["wall", "event"]:
        return "wall" if self.service is None else self.service.clock

    @property
    def max_lag_us(self) -> int | None:
        return None if self.service is None else self.service.max_lag_us

    @cached_property
    def groups(self) -> list[tuple[Shape, list[int]]]:
        """Views of one shape, by number: they are read together."""
        groups: dict[object, tuple[Shape, list[int]]] = {}
        for number, view in enumerate(self.views):
            groups.setdefault(view.shape.key, (view.shape, []))[1].append(number)
        return list(groups.values())

    @cached_property
    def positions(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(view, feature) -> (number of the view, number of the feature in it)."""
        return {
            (view.plan.name, feature): (number, at)
            for number, view in enumerate(self.views)
            for at, feature in enumerate(view.features)
        }

    @cached_property
    def following(self) -> list[int]:
        """The views that follow a topic, by number: an answer is as old as what these have folded."""
        return [number for number, view in enumerate(self.views) if view.plan.follows_a_topic]

    @cached_property
    def short_names(self) -> tuple[str, ...]:
        """The features' names without their views'. Raises RequestError where two are the same."""
        names = tuple(output.feature for output in self.outputs)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RequestError(
                "features of different views have the same name",
                got=", ".join(twice),
                hint='ask with "full_feature_names": true',
            )
        return names

    @cached_property
    def full_names(self) -> tuple[str, ...]:
        """The features' names, as view__feature."""
        return tuple(output.full_name for output in self.outputs)


class Readings:
    """The readings of one version of the definitions."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._kept: dict[What, Reading] = {}
        self._views: dict[tuple[str, tuple[str, ...]], ViewRead] = {}
        self._places = AllPlaces()

    def of(self, what: What) -> Reading:
        """The reading of a service, or of a list of references. Raises NotFound for what is not applied."""
        found = self._kept.get(what)
        if found is None:
            if len(self._kept) >= READINGS_KEPT_MAX:
                self._kept.clear()
                self._views.clear()
                self._places = AllPlaces()
            found = self._kept[what] = self._make(what)
        return found

    def _make(self, what: What) -> Reading:
        service = None
        if isinstance(what, str):
            service = self.definitions.services.get(what)
            if service is None:
                raise _not_found("feature service", what, self.definitions.services)
            pairs = [(each.view, feature) for each in service.selections for feature in each.features]
        else:
            pairs = [self._pair(reference) for reference in what]
        outputs = list(self._grouped(pairs))
        derived = [
            self.definitions.derived[view] for view in _distinct(o[0] for o in outputs) if self._is_derived(view)
        ]
        needed: dict[str, dict[str, None]] = {}
        for view, feature in [pair for pair in outputs if not self._is_derived(pair[0])]:
            needed.setdefault(view, {})[feature] = None
        for view, feature in [use for plan in derived for use in plan.uses]:
            needed.setdefault(view, {})[feature] = None
        views = [self._view(name, tuple(features)) for name, features in needed.items()]
        return Reading(
            project=self.definitions.project,
            service=service,
            views=tuple(views),
            places=self._places.of([view.plan for view in views]),
            derived=tuple(derived),
            outputs=tuple(self._output(view, feature, views, derived) for view, feature in outputs),
            join_keys=tuple({key.name: key for view in views for key in view.plan.keys}.values()),
            request=tuple({column.name: column for plan in derived for column in plan.request}.values()),
            echoed=frozenset(key.name for plan in self.definitions.views.values() for key in plan.keys),
            aliases={e.name: e.join_key for e in self.definitions.entities.values() if e.name != e.join_key},
        )

    def _is_derived(self, view: str) -> bool:
        return view in self.definitions.derived

    def _pair(self, reference: str) -> tuple[str, str]:
        view, colon, feature = reference.partition(":")
        if not colon or not view or not feature:
            raise RequestError(
                "a feature is named as view:feature", got=repr(reference), hint='write "airport_delays:last_delay"'
            )
        plan = self.definitions.views.get(view) or self.definitions.derived.get(view)
        if plan is None:
            raise _not_found("feature view", view, [*self.definitions.views, *self.definitions.derived])
        names = [each.name for each in plan.features]
        if feature not in names:
            raise _not_found(f"feature of {view}", feature, names)
        return view, feature

    def _grouped(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """View by view, in the order in which they are first named, each feature once: Feast's order."""
        for view in _distinct(view for view, _ in pairs):
            yield from _distinct(pair for pair in pairs if pair[0] == view)

    def _view(self, name: str, features: tuple[str, ...]) -> ViewRead:
        if (name, features) not in self._views:
            self._views[name, features] = ViewRead(self.definitions.views[name], features)
        return self._views[name, features]

    def _output(self, view: str, feature: str, views: Sequence[ViewRead], derived: Sequence[DerivedPlan]) -> Output:
        for number, plan in enumerate(derived):
            if plan.name == view:
                at = next(i for i, each in enumerate(plan.features) if each.name == feature)
                return Output(view, feature, plan.features[at].type, number, at, True)
        number = next(i for i, each in enumerate(views) if each.plan.name == view)
        read = views[number]
        return Output(view, feature, read.plan.feature(feature).type, number, read.features.index(feature), False)


def _distinct(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))


def _not_found(kind: str, name: str, known: Iterable[str]) -> NotFound:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(names)) or 'none'}"
    return NotFound(f"no such {kind} is applied", got=repr(name), hint=hint)
