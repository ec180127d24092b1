"""Values of features, put together from parts of the queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.finish import Values
from features.ranges import Ints


class Collected:
    """The values of several features for n queries: at least one part, if only of none of them, tells their type."""

    def __init__(self, features: int, queries: int) -> None:
        self._queries = queries
        self._valid = [np.zeros(queries, np.bool_) for _ in range(features)]
        self._values: list[npt.NDArray[Any] | None] = [None] * features

    def put(self, index: Ints, parts: Sequence[Values]) -> None:
        """The values of the queries at `index`, of every feature."""
        for number, part in enumerate(parts):
            values = self._values[number]
            if values is None:
                values = self._values[number] = np.zeros(self._queries, part.values.dtype)
            values[index] = part.values
            self._valid[number][index] = part.valid

    def values(self) -> list[Values]:
        """What was put together."""
        return [
            Values(values, valid) for values, valid in zip(self._values, self._valid, strict=True) if values is not None
        ]
