"""Flights scored by the model, the vectors fetched in every way that a team would, and in the one way that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from batch.compare import TOLERANCE, inexact_features
from batch.settings import BatchSettings
from batch.training import training_set
from features.plan import Definitions
from headrace.demo.over_http import SERVICE, TIMEOUT_S, Answer, ask, entities_of
from headrace.demo.rows import training_rows
from schemas.settings import ConnectionSettings

if TYPE_CHECKING:
    from headrace.demo.model import Model


class Way(NamedTuple):
    """A way to fetch vectors, for programs and for people."""

    key: str
    words: str


SDK = Way("sdk", "by the feast SDK")
REMOTE = Way("remote", "by Feast's remote client")
TRAINING = Way("training", "of a training set at their instants")
REMOTE_STORE = """\
# Written by `headrace demo`: Feast's own client of a feature server.
project: {project}
provider: local
registry:
  registry_type: sql
  path: {registry}
online_store:
  type: remote
  path: {url}
entity_key_serialization_version: 3
"""
Features = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Scored:
    """P(late) of each flight, and by way how many vectors equal those over HTTP."""

    scores: npt.NDArray[np.float64]
    equal: dict[Way, int]


def score(
    flights: pd.DataFrame,
    model: Model,
    url: str,
    settings: ConnectionSettings,
    batch: BatchSettings,
    applied: Definitions,
) -> Scored:
    """The flights' chances by what is known now."""
    answer, equal = vectors_by_every_way(flights, url, settings, batch, applied)
    rows = training_rows(flights)
    for name, values in answer.features.items():
        rows = rows.append_column(name, pa.array(values))
    return Scored(model.predict(rows), equal)


def vectors_by_every_way(
    flights: pd.DataFrame, url: str, settings: ConnectionSettings, batch: BatchSettings, applied: Definitions
) -> tuple[Answer, dict[Way, int]]:
    """The flights' vectors over HTTP, and how many by each other way are the same."""
    entities = entities_of(flights)
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        answer = ask(client, entities)
    others = {
        SDK: _by_sdk(str(settings.home), entities),
        REMOTE: _by_sdk(_remote_repository(settings, url), entities),
        TRAINING: _by_training(flights, answer, batch, applied),
    }
    service = applied.services[SERVICE]
    within = {f"{view}__{feature}" for view, feature in inexact_features(applied, service)}
    return answer, {way: _equal_vectors(answer.features, features, within) for way, features in others.items()}


def _by_sdk(repository: str, entities: Mapping[str, list[Any]]) -> Features:
    """`feast.FeatureStore` as anyone uses it; which store answers is in the repository's feature_store.yaml."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=repository)
    rows = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=True)]
    service = store.get_feature_service(SERVICE)
    features: dict[str, list[Any]] = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    return {name: values for name, values in features.items() if name not in entities}


def _remote_repository(settings: ConnectionSettings, url: str) -> str:
    folder = settings.home / "demo" / "remote"
    folder.mkdir(parents=True, exist_ok=True)
    text = REMOTE_STORE.format(project=settings.project, registry=settings.registry_address(), url=url)
    (folder / "feature_store.yaml").write_text(text)
    return str(folder)


def _by_training(flights: pd.DataFrame, answer: Answer, batch: BatchSettings, applied: Definitions) -> Features:
    """What a training set computes for the instants that the answers name."""
    instants = [datetime.fromisoformat(instant).replace(tzinfo=None) for instant in answer.instants]
    rows = training_rows(flights).set_column(0, "event_timestamp", pa.array(instants, pa.timestamp("us")))
    computed = training_set(applied, SERVICE, rows, batch)
    return {name: computed[name].to_pylist() for name in answer.features}


def _equal_vectors(these: Features, those: Features, within: set[str]) -> int:
    """How many vectors are equal in every value, those `within` a tolerance so; none where features differ in name."""
    if these.keys() != those.keys():
        return 0
    columns = [
        [_is_equal(one, other, name in within) for one, other in zip(these[name], those[name], strict=True)]
        for name in these
    ]
    return sum(all(vector) for vector in zip(*columns, strict=True))


def _is_equal(one: object, other: object, within: bool) -> bool:
    if within and isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one))
    return one == other
