"""Entities and windowed feature views, as a data scientist declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from features.aggregations import Aggregation
from features.errors import DefinitionError
from features.place import caller, check_name
from features.plan import Selection
from features.view_plan import plan_view
from schemas.event import Event

SHARDS = 64
"""Shards a view: enough for 64 workers' calls beside each other in a Cluster, few enough to advance each second."""
SHARDS_MAX = 4096


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
        source: type[Event],
        features: Mapping[str, Aggregation],
        where: str | None = None,
        shards: int = SHARDS,
        owner: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.place = caller()
        try:
            self.name = check_name("a view", name)
            self.entities = _entities(entity, entities)
            self.source = source
            self.features = dict(features) if isinstance(features, Mapping) else features
            self.where = where
            self.shards = shards
            self.owner = owner
            self.description = description
            self.tags = dict(tags or {})
            self._check_shape()
            self.plan = plan_view(self)
        except DefinitionError as error:
            raise error.at(f"{self.place}: view {name!r}") from None

    def __getitem__(self, features: str | tuple[str, ...] | list[str]) -> Selection:
        names = (features,) if isinstance(features, str) else tuple(features)
        return select(self.name, names, tuple(self.features))

    def __repr__(self) -> str:
        lines = [f"  {name}: {aggregation!r}" for name, aggregation in self.features.items()]
        of = ", ".join(entity.name for entity in self.entities)
        return f"FeatureView({self.name!r} of {of} from {self.source.__name__})\n" + "\n".join(lines)

    def _check_shape(self) -> None:
        if not (isinstance(self.source, type) and issubclass(self.source, Event)):
            raise DefinitionError("source= is an event type", got=repr(self.source), hint="write source=Flight")
        if not isinstance(self.features, dict) or not self.features:
            raise DefinitionError(
                "features= names at least one feature", got=repr(self.features), hint='{"n": Count()}'
            )
        for name, aggregation in self.features.items():
            check_name("a feature", name)
            if not isinstance(aggregation, Aggregation):
                raise DefinitionError(
                    "a feature is an aggregation",
                    where=name,
                    got=repr(aggregation),
                    hint='write Mean("dep_delay_min", over="6h")',
                )
        if not isinstance(self.shards, int) or not 1 <= self.shards <= SHARDS_MAX:
            raise DefinitionError(f"shards= is 1 to {SHARDS_MAX}", got=repr(self.shards))


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
