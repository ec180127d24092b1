"""What a read answers: values by column, with their statuses, instants and origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from features.finish import Values
from features.ranges import Ints
from serving.reading import Reading, ViewRead

Statuses = npt.NDArray[np.uint8]


def iso(instant_us: int) -> str:
    """An instant in UTC, as answers write it: no digits after the second, or six."""
    return str(np.datetime64(int(instant_us), "us")).removesuffix(".000000") + "Z"


class Status(IntEnum):
    """Feast's FieldStatus."""

    INVALID = 0
    """The question can't be answered; the reason stands beside it."""
    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    """The entity has no row in a view of latest values."""
    OUTSIDE_MAX_AGE = 4
    """A latest value beyond its TTL, or a value read from state that is older than the service's max_lag."""


@dataclass
class ViewAnswer:
    """What was read of one view: for each entity its row, its shard's checkpoint, its hash, and what came of them."""

    read: ViewRead
    keys: list[str | None]
    rows: list[bytes | None]
    checkpoints: list[bytes | None]
    hashes: list[dict[bytes, bytes] | None] | None
    newest_us: Ints
    """The newest event folded into each row; NO_EVENT where there is no row."""
    folded_us: Ints
    """The newest event below each shard's checkpoint."""
    values: list[Values] = field(default_factory=list)
    invalid: npt.NDArray[np.bool_] | None = None
    """Entities whose rows hold events at or after the instant asked for; None: there is none."""


@dataclass
class Vectors:
    """The answer to one read. `columns` and `statuses` are in the order of `reading.outputs`."""

    reading: Reading
    count: int
    instants_us: Ints
    views: list[ViewAnswer]
    columns: list[Values]
    statuses: list[Statuses]
    entities: dict[str, Sequence[Any]]
    """The request's join keys, as they came."""
    request: dict[str, Sequence[Any]]
    """The request-time columns, as Python values."""

    @property
    def ages_us(self) -> Ints:
        """How long before its instant the newest event lies that a vector can know of, by the view that knows least."""
        known = np.full(self.count, np.iinfo(np.int64).max)
        for view in self.views:
            np.minimum(known, view.folded_us, out=known)
        ages: Ints = np.maximum(self.instants_us - known, 0)
        return ages

    def to_dict(self, full_feature_names: bool = False) -> dict[str, list[Any]]:
        """Columns by name, Python values, None for null: join keys first."""
        names = self.reading.full_names if full_feature_names else self.reading.short_names
        columns = {name: list(values) for name, values in self.entities.items()}
        return columns | {name: values.to_list() for name, values in zip(names, self.columns, strict=True)}

    def reasons(self) -> dict[int, str]:
        """For each entity with an INVALID value why it is so."""
        return {
            entity: f"{view.read.plan.name} has folded an event at {iso(view.newest_us[entity])}, which is not before "
            f"{iso(self.instants_us[entity])}; ask for a later instant, or `headrace train` for the past"
            for view in self.views
            if view.invalid is not None
            for entity in np.flatnonzero(view.invalid).tolist()
        }
