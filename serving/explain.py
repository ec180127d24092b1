"""Where each value came from: window, tiles, events, offsets, watermark, lag, and whether it is exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from features.finish import Values
from features.plan import CellKind, Feature, Finish, ViewPlan
from features.records import parse_rows
from features.window import bounds_us, tile_key_range
from schemas.row import GENERATION_BYTES, NO_EVENT, TIME_MIN_US
from serving.assemble import to_json
from serving.checkpoints import positions
from serving.vectors import Status, Vectors, ViewAnswer, iso

_NAME = re.compile(r"\w+")

APPROXIMATE: Mapping[Finish, str] = {
    Finish.VARIANCE: "within 1e-9 of the population variance",
    Finish.STDDEV: "within 1e-9 of the population standard deviation",
    Finish.SKEW: "within 1e-9 of the population skewness",
    Finish.KURTOSIS: "within 1e-9 of the population excess kurtosis",
    Finish.DECAYED_SUM: "within 1e-9 of the sum of the terms' sizes",
    Finish.DECAYED_MEAN: "within 1e-9 of the sum of the terms' sizes",
    Finish.QUANTILE: "DDSketch: within 1 % of the quantile",
    Finish.APPROX_COUNT_DISTINCT: "HyperLogLog: a standard error of 1.6 %",
}
"""Finishes that are not exact to the last bit, and how near they come."""


def explain(vectors: Vectors) -> list[dict[str, Any]]:
    """For each entity its values' trails, in the order of the outputs."""
    return [
        {
            "entity": {name: values[entity] for name, values in vectors.entities.items()},
            "instant": iso(vectors.instants_us[entity]),
            "values": [_value(vectors, number, entity) for number in range(len(vectors.reading.outputs))],
        }
        for entity in range(vectors.count)
    ]


def _value(vectors: Vectors, number: int, entity: int) -> dict[str, Any]:
    output = vectors.reading.outputs[number]
    trail: dict[str, Any] = {
        "feature": f"{output.view}:{output.feature}",
        "value": _json_value(output.type, vectors.columns[number], entity),
        "status": Status(int(vectors.statuses[number][entity])).name,
    }
    if output.derived:
        plan = vectors.reading.derived[output.source]
        feature = next(each for each in plan.features if each.name == output.feature)
        named = set(_NAME.findall(feature.sql))
        inputs = {
            f"{view}:{name}": _input(vectors, view, name, entity) for view, name in plan.uses if {view, name} <= named
        }
        request = {c.name: vectors.request[c.name][entity] for c in plan.request if c.name in named}
        return trail | {"declared": feature.sql, "inputs": inputs, "request": request}
    view = vectors.views[output.source]
    return trail | _trail(view, view.read.plan.feature(output.feature), int(vectors.instants_us[entity]), entity)


def _input(vectors: Vectors, view: str, name: str, entity: int) -> Any:
    number, at = vectors.reading.positions[view, name]
    answer = vectors.views[number]
    return _json_value(answer.read.plan.feature(name).type, answer.values[at], entity)


def _trail(view: ViewAnswer, feature: Feature, instant_us: int, entity: int) -> dict[str, Any]:
    plan, checkpoint = view.read.plan, view.checkpoints[entity]
    instant = np.array([instant_us], np.int64)
    start, end = bounds_us(feature.window, plan.resolutions[feature.window.resolution].hop_us, instant)
    folded, newest = int(view.folded_us[entity]), int(view.newest_us[entity])
    return {
        "declared": feature.declared,
        "window": {"start": None if start[0] <= TIME_MIN_US else iso(start[0]), "end": iso(end[0])},
        **_merged(view, feature, instant, entity),
        "newest_event": None if newest == NO_EVENT else iso(newest),
        "offsets": [
            {"topic": plan.sources[source].event.log_name, "partition": partition, "offset": offset}
            for source, partition, offset in positions(checkpoint)
        ],
        "watermark": None if folded == NO_EVENT else iso(folded),
        "lag_us": None if folded == NO_EVENT else max(instant_us - folded, 0),
        "exact": _exactness(view, feature, entity),
        "fingerprint": plan.fingerprint,
    }


def _exactness(view: ViewAnswer, feature: Feature, entity: int) -> bool | str:
    """True: to the last bit. Else how near the value comes; False: there is no value for the instant."""
    values = view.values[view.read.features.index(feature.name)]
    if (view.invalid is not None and view.invalid[entity]) or (values.invalid is not None and values.invalid[entity]):
        return False
    limit = feature.parameters.get("limit")
    if feature.finish is Finish.COUNT_DISTINCT and values.valid[entity] and values.values[entity] == limit:
        return f"at least: no more than {limit} are told apart"
    return APPROXIMATE.get(feature.finish, True)


def _merged(view: ViewAnswer, feature: Feature, instant: Any, entity: int) -> dict[str, Any]:
    """How many records and tiles the window takes from the row, and how many events they hold, where that is kept."""
    plan, row, checkpoint = view.read.plan, view.rows[entity], view.checkpoints[entity]
    generation = None if checkpoint is None else checkpoint[:GENERATION_BYTES]
    tiles = parse_rows(plan, [row], [generation])
    first, last = tile_key_range(feature.window, plan.resolutions, instant)
    inside = np.flatnonzero((tiles.tile_keys >= first[0]) & (tiles.tile_keys < last[0]))
    merged: dict[str, Any] = {
        "tiles": len(np.unique(tiles.tile_keys[inside])),
        "records": len(inside),
        "events": None,
    }
    counter = _counting_cell(plan, feature)
    if counter is not None:
        merged["events"] = int(tiles.state(counter, inside)[0].sum())
    return merged


def _counting_cell(plan: ViewPlan, feature: Feature) -> int | None:
    """The cell that counts the feature's inputs, else one that counts all events; None where neither is kept."""
    for cell in feature.cells:
        if plan.cells[cell].kind in (CellKind.COUNT, CellKind.MOMENTS):
            return cell
    return None


def _json_value(type_name: str, values: Values, entity: int) -> Any:
    if not values.valid[entity]:
        return None
    value = values.values[entity : entity + 1].tolist()[0]
    convert = to_json(type_name)
    return value if convert is None else convert(value)
