"""What the online store answers, for whoever enriches events: serving's read, handed to the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from features.finish import Values
from features.plan import Definitions
from features.ranges import Ints
from schemas.settings import ConnectionSettings
from serving.cluster import open_redis
from serving.read import Reader
from stream.enrich import Answers

ROWS_MAX = 1_000
"""Entities of one question: rows may have ten kilobytes each."""
TIMEOUT_S = 30.0


class OnlineLookup:
    """Reads features of a view, each entity at an instant of its own. For one thread."""

    def __init__(self, settings: ConnectionSettings, definitions: Definitions) -> None:
        self._definitions = definitions
        self._reader = Reader(open_redis(settings.redis_address(), timeout_s=TIMEOUT_S), definitions)

    def __call__(self, view: str, features: Sequence[str], keys: Mapping[str, list[Any]], instants_us: Ints) -> Answers:
        """As `stream.enrich.Lookup` says. Raises NotReady where Redis or a shard's state is away."""
        types = [self._definitions.views[view].feature(feature).type for feature in features]
        columns: list[list[Values]] = [[] for _ in features]
        late = []
        for start in range(0, len(instants_us), ROWS_MAX):
            some = slice(start, start + ROWS_MAX)
            vectors = self._reader.read(
                [f"{view}:{feature}" for feature in features],
                {name: values[some] for name, values in keys.items()},
                as_of_us=instants_us[some],
            )
            for parts, values in zip(columns, vectors.columns, strict=True):
                parts.append(values)
            (answer,) = vectors.views
            late.append(np.zeros(vectors.count, np.bool_) if answer.invalid is None else answer.invalid)
        arrays = [Values.concat(parts).to_arrow(type_) for parts, type_ in zip(columns, types, strict=True)]
        return Answers(arrays, np.concatenate(late))

    def close(self) -> None:
        """Frees the connection."""
        self._reader.close()
