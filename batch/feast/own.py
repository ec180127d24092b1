"""headrace's own views as Feast asks for them: the applied definitions, computed by the one read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from feast.feature_view import FeatureView

from batch.rows import check_rows
from batch.settings import BatchSettings
from batch.training import with_service
from features.applied import load_applied
from features.plan import Definitions, Selection, ServicePlan
from features.ranges import Ints
from schemas.errors import ConfigError

TAG = "headrace"
"""On every view that `headrace apply` wrote."""


def is_own(view: FeatureView) -> bool:
    """True for a view that headrace declared."""
    return TAG in view.tags


def own_features(
    settings: BatchSettings,
    views: Sequence[FeatureView],
    refs: Sequence[str],
    rows: pa.Table,
    instants: Ints,
    full_feature_names: bool,
) -> dict[str, pa.ChunkedArray]:
    """The features that the references ask of these views, by the names that Feast gives their columns."""
    definitions = load_applied(settings.registry_address(), settings.project)
    if definitions is None:
        raise ConfigError("nothing is applied yet", where=settings.project, hint="run headrace apply")
    found: dict[str, pa.ChunkedArray] = {}
    # Views whose keys are the rows' own columns are computed together; one with renamed keys by itself.
    plain = [view for view in views if not view.projection.join_key_map]
    for group in [plain, *([view] for view in views if view.projection.join_key_map)]:
        if group:
            found |= _group(definitions, settings, group, refs, rows, instants, full_feature_names)
    return found


def _group(
    definitions: Definitions,
    settings: BatchSettings,
    views: Sequence[FeatureView],
    refs: Sequence[str],
    rows: pa.Table,
    instants: Ints,
    full_feature_names: bool,
) -> dict[str, pa.ChunkedArray]:
    asked = {view.name: _asked(view, refs) for view in views}
    service = ServicePlan(
        name="",
        selections=tuple(Selection(name, tuple(features)) for name, features in asked.items() if features),
        log=0.0,
        clock="wall",
        max_lag_us=None,
    )
    _check(definitions, service)
    renamed = _with_join_keys(rows, views[0].projection.join_key_map)
    answer = with_service(definitions, service, check_rows(definitions, service, renamed), instants, settings)
    names = {view.name: view.projection.name_alias or view.name for view in views}
    return {
        f"{names[s.view]}__{feature}" if full_feature_names else feature: answer[f"{s.view}__{feature}"]
        for s in service.selections
        for feature in s.features
    }


def _asked(view: FeatureView, refs: Sequence[str]) -> list[str]:
    prefix = f"{view.projection.name_to_use()}:"  # type: ignore[no-untyped-call]
    return [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]


def _check(definitions: Definitions, service: ServicePlan) -> None:
    for selection in service.selections:
        plan = definitions.views.get(selection.view) or definitions.derived.get(selection.view)
        known = [] if plan is None else [feature.name for feature in plan.features]
        unknown = [feature for feature in selection.features if feature not in known]
        if unknown:
            raise ConfigError(
                "Feast's registry and the applied definitions differ",
                where=selection.view,
                got=f"no feature {', '.join(unknown)}",
                hint="run headrace apply",
            )


def _with_join_keys(rows: pa.Table, join_key_map: dict[str, str]) -> pa.Table:
    """The rows with a view's join keys under their own names."""
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    return pa.table(columns | {key: columns[name] for key, name in join_key_map.items() if name in columns})
