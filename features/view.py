"""Entities and windowed feature views, as a data scientist declares them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from features.aggregation import Aggregation
from features.enriched import Enriched
from features.errors import DefinitionError
from features.expression import quote
from features.html import view_html
from features.lag import Lag, resolve_lags
from features.place import caller, check_name
from features.plan import Selection, ViewPlan
from features.preview import Events, Frame, preview_view
from features.source import AnySource, check_source, columns_of, events_of
from features.view_plan import plan_latest, plan_view
from schemas.duration import parse_duration
from schemas.event import Event

SHARDS = 64
"""Shards a view: enough for 64 workers' calls beside each other in a Cluster, few enough to advance each second."""
SHARDS_MAX = 4096
DECLARED: dict[str, ViewPlan] = {}
"""The views that this process has declared, the last one of each name: a service names them, a preview reads them."""


class Entity:
    """Something that features are about, found by its join key: a column of the events and of a request."""

    def __init__(
        self,
        name: str,
        *,
        join_key: str | None = None,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.place = caller()
        try:
            self.name = check_name("an entity", name)
            self.join_key = name if join_key is None else join_key
            if not isinstance(self.join_key, str) or not self.join_key.isidentifier():
                raise DefinitionError("a join key is a column's name", got=repr(join_key), hint='join_key="origin"')
        except DefinitionError as error:
            raise error.at(str(self.place)) from None
        self.description = description
        self.owner = owner
        self.tags = dict(tags or {})

    def __repr__(self) -> str:
        return f"Entity({self.name!r}, join_key={self.join_key!r})"


class FeatureView:
    """Features of an entity (or of several: a composite key) over windows of one event type.

    `view["a"]` or `view["a", "b"]` selects features for a service. Everything is checked here, where it is declared:
    raises DefinitionError with file, view, feature, fact and next step.
    """

    def __init__(
        self,
        name: str,
        *,
        entity: Entity | None = None,
        entities: Sequence[Entity] | None = None,
        source: AnySource | Enriched,
        features: Mapping[str, Aggregation | Lag],
        where: str | None = None,
        shards: int = SHARDS,
        owner: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.place = caller()
        self.where = where
        self.shards = shards
        self.owner = owner
        self.description = description
        self.tags = dict(tags or {})
        try:
            self.name = check_name("a view", name)
            self.entities = _entities(entity, entities)
            self.source = check_source(source)
            _check_shards(shards)
            self.features: dict[str, Any] = self._features(features)
            self.plan = self._plan()
            DECLARED[self.name] = self.plan
        except DefinitionError as error:
            raise error.at(f"{self.place}: view {name!r}") from None

    def preview(self, events: Events, at: datetime | str | None = None) -> Frame:
        """The features of every entity in a frame of events, in process: features/preview.py."""
        return preview_view(self.plan, events, at)

    def _repr_html_(self) -> str:
        return view_html(self.plan)

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The event types that the view reads."""
        return events_of(self.source)

    def __getitem__(self, features: str | tuple[str, ...] | list[str]) -> Selection:
        names = (features,) if isinstance(features, str) else tuple(features)
        return select(self.name, names, tuple(self.features))

    def __repr__(self) -> str:
        lines = [f"  {name}: {aggregation!r}" for name, aggregation in self.features.items()]
        of = ", ".join(entity.name for entity in self.entities)
        return f"FeatureView({self.name!r} of {of} from {self.source.__name__})\n" + "\n".join(lines)

    def _features(self, features: Any) -> dict[str, Any]:
        if not isinstance(features, Mapping) or not features:
            raise DefinitionError("features= names at least one feature", got=repr(features), hint='{"n": Count()}')
        for name, aggregation in features.items():
            check_name("a feature", name)
            if not isinstance(aggregation, Aggregation | Lag):
                raise DefinitionError(
                    "a feature is an aggregation",
                    where=name,
                    got=repr(aggregation),
                    hint='write Mean("dep_delay_min", over="6h")',
                )
        return dict(resolve_lags(dict(features)))

    def _plan(self) -> ViewPlan:
        return plan_view(self)


class LatestView(FeatureView):
    """An entity's newest row, its nulls included, if `q − ttl ≤ t < q`; without `ttl` of any age.

    `fields` are columns of the source (all but the keys, if it is left away). Raises DefinitionError.
    """

    def __init__(
        self,
        name: str,
        *,
        entity: Entity | None = None,
        entities: Sequence[Entity] | None = None,
        source: AnySource | Enriched,
        fields: Sequence[str] | None = None,
        ttl: str | None = None,
        where: str | None = None,
        shards: int = SHARDS,
        owner: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.ttl = ttl
        super().__init__(
            name,
            entity=entity,
            entities=entities,
            source=source,
            features=fields,  # type: ignore[arg-type]  # what a view's features are made of is its kind's own
            where=where,
            shards=shards,
            owner=owner,
            description=description,
            tags=tags,
        )

    def __repr__(self) -> str:
        of = ", ".join(entity.name for entity in self.entities)
        ttl = "" if self.ttl is None else f" at most {self.ttl} old"
        return f"LatestView({self.name!r} of {of} from {self.source.__name__}{ttl})\n  {', '.join(self.features)}"

    def _plan(self) -> ViewPlan:
        return plan_latest(self, None if self.ttl is None else _ttl_us(self.ttl))

    def _features(self, features: Any) -> dict[str, Any]:
        fields: Sequence[str] | None = features
        known = [column.name for column in columns_of(self.source)]
        keys = {entity.join_key for entity in self.entities}
        if fields is None:
            fields = [name for name in known if name not in keys]
        if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
            raise DefinitionError("fields= is a list of columns", got=repr(fields), hint='fields=["seats"]')
        for name in fields:
            check_name("a field", name)
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
                raise DefinitionError(
                    f"{self.source.__name__} has no such column",
                    where=f"field {name!r}",
                    got=repr(name),
                    hint=f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}",
                )
        return {name: quote(name) for name in fields}


def _ttl_us(ttl: str) -> int:
    try:
        found = parse_duration(ttl)
    except (TypeError, ValueError) as error:
        raise DefinitionError("ttl= is a duration", got=repr(ttl), hint=f'write ttl="365d" ({error})') from None
    if found <= 0:
        raise DefinitionError("ttl= is longer than nothing", got=repr(ttl), hint='write ttl="365d"')
    return found


def _check_shards(shards: object) -> int:
    if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= SHARDS_MAX:
        raise DefinitionError(f"shards= is 1 to {SHARDS_MAX}", got=repr(shards))
    return shards


def select(view: str, features: tuple[str, ...], known: tuple[str, ...]) -> Selection:
    """A selection of a view's features; raises DefinitionError for one that the view does not have."""
    for feature in features:
        if feature not in known:
            raise DefinitionError(
                "no such feature", where=f"view {view!r}", got=repr(feature), hint=f"there are: {', '.join(known)}"
            )
    return Selection(view, features)


def _entities(entity: Entity | None, entities: Sequence[Entity] | None) -> tuple[Entity, ...]:
    if (entity is None) == (entities is None):
        raise DefinitionError(
            "a view has entity= or entities=[…]",
            got="both" if entity is not None else "neither",
            hint='write entity=Entity("airport", join_key="origin")',
        )
    chosen = (entity,) if entity is not None else tuple(entities or ())
    for each in chosen:
        if not isinstance(each, Entity):
            raise DefinitionError(
                "entity= takes an Entity", got=repr(each), hint='Entity("airport", join_key="origin")'
            )
    names = [each.join_key for each in chosen]
    if not names or len(set(names)) != len(names):
        raise DefinitionError("entities= names different join keys", got=repr(names))
    return chosen
