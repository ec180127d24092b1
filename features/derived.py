"""Derived views: expressions over other views' features and over what a request brings along.

They are computed at request time and in training sets, by the same kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from features.errors import DefinitionError
from features.expression import bind
from features.html import derived_html
from features.place import caller, check_name
from features.plan import DerivedFeature, DerivedPlan, Selection
from features.udf import Udf
from features.view import FeatureView, select
from schemas.event import Column
from schemas.types import TypeNotSupported, from_annotation

DECLARED: dict[str, DerivedPlan] = {}
"""The derived views that this process has declared, the last one of each name."""


class Request:
    """Columns that a request (and a row of a training set) brings along: `Request(distance_miles=int)`.

    A nullable one is written `int | None`. Raises DefinitionError for a type that headrace does not keep.
    """

    def __init__(self, **columns: object) -> None:
        if not columns:
            raise DefinitionError("Request() names at least one column", hint="write Request(distance_miles=int)")
        self.columns = tuple(_column(name, annotation) for name, annotation in columns.items())

    def __repr__(self) -> str:
        return f"Request({', '.join(f'{column.name}={column.type}' for column in self.columns)})"


class DerivedView:
    """Features computed from the features of `inputs` (views, selections of views, Request): `view.feature` in SQL."""

    def __init__(
        self,
        name: str,
        *,
        inputs: Sequence[FeatureView | Request],
        features: Mapping[str, str],
        owner: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.place = caller()
        try:
            self.name = check_name("a view", name)
            self.views, self.request = _inputs(inputs)
            self.features = _features(features)
            self.owner = owner
            self.description = description
            self.tags = dict(tags or {})
            self.plan = self._plan()
            DECLARED[self.name] = self.plan
        except DefinitionError as error:
            raise error.at(f"{self.place}: view {name!r}") from None

    def __getitem__(self, features: str | tuple[str, ...] | list[str]) -> Selection:
        names = (features,) if isinstance(features, str) else tuple(features)
        return select(self.name, names, tuple(self.features))

    def __repr__(self) -> str:
        lines = [f"  {name}: {sql}" for name, sql in self.features.items()]
        return f"DerivedView({self.name!r} from {', '.join(view.name for view in self.views)})\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        return derived_html(self.plan)

    def _plan(self) -> DerivedPlan:
        columns: dict[str, str | Mapping[str, str]] = {
            view.name: {feature.name: feature.type for feature in view.plan.features} for view in self.views
        }
        columns |= {column.name: column.type for column in self.request}
        uses: dict[tuple[str, str], None] = {}
        features = []
        for name, sql in self.features.items():
            try:
                bound = bind(sql, columns)
            except DefinitionError as error:
                raise error.at(f"feature {name!r}") from None
            uses |= {(use[0], use[1]): None for use in sorted(bound.columns) if len(use) > 1}
            features.append(DerivedFeature(name, bound.type, bound.sql))
        meaning = ([view.plan.fingerprint for view in self.views], self.request, features)
        return DerivedPlan(
            name=self.name,
            fingerprint=hashlib.sha256(msgspec.json.encode(meaning)).hexdigest()[:32],
            inputs=tuple(view.name for view in self.views),
            uses=tuple(uses),
            request=self.request,
            features=tuple(features),
            owner=self.owner,
            description=self.description,
            tags=self.tags,
        )


def _column(name: str, annotation: object) -> Column:
    try:
        type_name, nullable = from_annotation(annotation)
    except TypeNotSupported as error:
        raise DefinitionError(
            "a request column has a type that headrace keeps", where=name, got=repr(annotation), hint=str(error)
        ) from None
    return Column(name, type_name, nullable)


def _inputs(inputs: Sequence[FeatureView | Request]) -> tuple[tuple[FeatureView, ...], tuple[Column, ...]]:
    views: list[FeatureView] = []
    request: list[Column] = []
    for each in inputs:
        if isinstance(each, FeatureView):
            views.append(each)
        elif isinstance(each, Request):
            request += each.columns
        else:
            raise DefinitionError("inputs= takes feature views and Request(…)", got=repr(each))
    names = [view.name for view in views] + [column.name for column in request]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DefinitionError("inputs have different names", got=f"twice: {', '.join(twice)}", hint="rename one")
    if not names:
        raise DefinitionError("inputs= names at least one view or Request", hint="inputs=[airport_delays]")
    return tuple(views), tuple(request)


def _features(features: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(features, Mapping) or not features:
        raise DefinitionError(
            "features= names at least one expression", got=repr(features), hint='{"gap": "a.x - b.y"}'
        )
    for name, sql in features.items():
        check_name("a feature", name)
        if isinstance(sql, Udf):
            raise DefinitionError(
                "a derived feature is SQL: servers compute it while a model waits, and they run no Python of a project",
                where=name,
                got=f"udf {sql!r}",
                hint="say it in SQL, or call the udf in a FeatureView's feature, where events are folded",
            )
        if not isinstance(sql, str) or not sql.strip():
            raise DefinitionError("a derived feature is SQL text", where=name, got=repr(sql), hint='"a.x - b.y"')
    return dict(features)
