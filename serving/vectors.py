"""What a read answers: values by column, with their statuses, instants and origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from features.finish import Values
from features.ranges import Ints
from schemas.row import GENERATION_BYTES, NO_EVENT
from serving.quick import ttl_us_of
from serving.reading import Output, Reading, ViewRead

Statuses = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


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
    keys: Sequence[str | None]
    found: Sequence[bytes | None]
    """Each entity's row as it stands in Redis, of whatever generation."""
    hashes: list[dict[bytes, bytes] | None] | None
    folded_us: Ints
    """The newest event below each shard's checkpoint."""
    shards: Sequence[bytes | None]
    """The checkpoints that were read."""
    which: Ints
    """For each entity the number of its checkpoint among `shards`; −1 where its key is null."""
    newest_us: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """The newest event folded into each row; NO_EVENT where there is no row."""
    values: list[Values] = field(default_factory=list)
    invalid: Bools | None = None
    """Entities whose rows hold events at or after the instant asked for; None: there is none."""

    @cached_property
    def checkpoints(self) -> list[bytes | None]:
        """Each entity's shard's checkpoint; None where its key is null."""
        return [None if number < 0 else self.shards[number] for number in self.which.tolist()]

    @cached_property
    def rows(self) -> list[bytes | None]:
        """Each entity's row; None where there is none of its shard's generation."""
        return [
            row
            if row is not None and checkpoint is not None and row[:GENERATION_BYTES] == checkpoint[:GENERATION_BYTES]
            else None
            for row, checkpoint in zip(self.found, self.checkpoints, strict=True)
        ]

    @property
    def generations(self) -> list[bytes | None]:
        """Each entity's shard's generation."""
        return [None if checkpoint is None else checkpoint[:GENERATION_BYTES] for checkpoint in self.checkpoints]


@dataclass
class Vectors:
    """The answer to one read. `columns` is in the order of `reading.outputs`."""

    reading: Reading
    count: int
    instants_us: Ints
    views: list[ViewAnswer]
    columns: list[Values]
    entities: dict[str, Sequence[Any]]
    """The request's join keys, as they came."""
    request: dict[str, list[Any]]
    """The request-time columns, as Python values."""
    folded_us: Ints
    """By view and entity the newest event below the shard's checkpoint."""

    @cached_property
    def known_us(self) -> Ints:
        """The newest event that each vector can know of, by the view that knows least; NO_EVENT: one knows of none.

        Views over tables and files alone don't count.
        """
        following = self.reading.following
        folded = self.folded_us if len(following) == len(self.views) else self.folded_us[following]
        known: Ints = folded.min(axis=0, initial=np.iinfo(np.int64).max)
        return known

    @property
    def ages_us(self) -> Ints:
        """How long before its instant the newest event lies that a vector can know of."""
        ages: Ints = np.maximum(self.instants_us - self.known_us, 0)
        return ages

    @cached_property
    def late(self) -> Bools | None:
        """Vectors read from state older than the service's max_lag; None: there is none."""
        if self.reading.max_lag_us is None:
            return None
        late = self.ages_us > self.reading.max_lag_us
        return late if late.any() else None

    @cached_property
    def statuses(self) -> list[Statuses]:
        """The status of each value, in the order of the outputs."""
        return [
            self.statuses_of(output, values) for output, values in zip(self.reading.outputs, self.columns, strict=True)
        ]

    def statuses_of(self, output: Output, values: Values) -> Statuses:
        """The statuses of one column."""
        statuses = np.where(values.valid, np.uint8(Status.PRESENT), np.uint8(Status.NULL_VALUE))
        if self.late is not None:
            statuses[self.late & values.valid] = Status.OUTSIDE_MAX_AGE
        if not output.derived:
            self._latest(self.views[output.source], statuses)
        if values.invalid is not None:
            statuses[values.invalid] = Status.INVALID
        invalid = self.invalid_of(output)
        if invalid is not None:
            statuses[invalid] = Status.INVALID
        return statuses

    def _latest(self, view: ViewAnswer, statuses: Statuses) -> None:
        """Where a view of latest values has no row, or none that is young enough, the status says which."""
        if view.read.plan.kind != "latest":
            return
        null, absent = statuses == Status.NULL_VALUE, view.newest_us == NO_EVENT
        ttl_us = ttl_us_of(view.read.plan)
        if ttl_us is not None:
            statuses[null & ~absent & (view.newest_us < self.instants_us - ttl_us)] = Status.OUTSIDE_MAX_AGE
        statuses[null & absent] = Status.NOT_FOUND

    def invalid_of(self, output: Output) -> Bools | None:
        """Entities for which a feature has no answer; None: it has one for all."""
        if not output.derived:
            return self.views[output.source].invalid
        inputs = {self.reading.positions[use][0] for use in self.reading.derived[output.source].uses}
        masks = [mask for mask in (self.views[number].invalid for number in inputs) if mask is not None]
        if not masks:
            return None
        joined: Bools = np.logical_or.reduce(masks)
        return joined

    def to_dict(self, full_feature_names: bool = False) -> dict[str, list[Any]]:
        """Columns by name, Python values, None for null: join keys first."""
        names = self.reading.full_names if full_feature_names else self.reading.short_names
        columns = {name: list(values) for name, values in self.entities.items()}
        return columns | {name: values.to_list() for name, values in zip(names, self.columns, strict=True)}

    def reasons(self) -> dict[int, str]:
        """For each entity with an INVALID value why it is so."""
        found = {
            int(entity): f"{output.view}:{output.feature} has more distinct values in a tile than it keeps"
            for output, values in zip(self.reading.outputs, self.columns, strict=True)
            if values.invalid is not None
            for entity in np.flatnonzero(values.invalid)
        }
        return found | {
            entity: f"{view.read.plan.name} has folded an event at {iso(view.newest_us[entity])}, which is not before "
            f"{iso(self.instants_us[entity])}; ask for a later instant, or `headrace train` for the past"
            for view in self.views
            if view.invalid is not None
            for entity in np.flatnonzero(view.invalid).tolist()
        }

    def age_or_none(self) -> list[int | None]:
        """Ages; None where a view knows of no event at all yet."""
        ages: list[int | None] = self.ages_us.tolist()
        if int(self.known_us.min(initial=0)) > NO_EVENT:
            return ages
        return [None if known == NO_EVENT else age for known, age in zip(self.known_us.tolist(), ages, strict=True)]
