"""What the executors read: flat, frozen, JSON-encodable records that `planner.py` makes of the declarations.

Nothing in here knows Python classes of the user, Kafka, Redis, Iceberg or Feast. A plan's meaning is pinned by its
`fingerprint`: two plans with one fingerprint give bit-equal values on every executor, and state written under one
fingerprint is never read under another.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

import msgspec

from schemas.event import Column, EventSpec

LIFETIME = 0
"""The `hop_us` of the resolution that has one tile for all time."""
EVERY_EVENT = -1
ELEMENT = -2
"""The input of a cell inside a cell: the element of the outer one's list or map."""


class CellKind(StrEnum):
    """A mergeable piece of state. `features/cells.py` says what each holds and how many words it takes."""

    COUNT = "count"
    SUM_INT = "sum_int"
    SUM_FIXED = "sum_fixed"
    MIN_INT = "min_int"
    MAX_INT = "max_int"
    MIN_FLOAT = "min_float"
    MAX_FLOAT = "max_float"
    MIN_BYTES = "min_bytes"
    MAX_BYTES = "max_bytes"
    FIRST = "first"
    LAST = "last"
    FIRST_BYTES = "first_bytes"
    LAST_BYTES = "last_bytes"
    MOMENTS = "moments"
    MOMENTS4 = "moments4"
    DECAYED = "decayed"
    FIRST_K = "first_k"
    LAST_K = "last_k"
    LAST_K_DISTINCT = "last_k_distinct"
    TOP_K = "top_k"
    BOTTOM_K = "bottom_k"
    FREQUENCIES = "frequencies"
    DISTINCT = "distinct"
    REGISTERS = "registers"
    BUCKETS = "buckets"
    BINS = "bins"
    BY = "by"
    ELEMENTS = "elements"


class Finish(StrEnum):
    """How merged cells become a value; the formulas stand in `features/finish.py`."""

    COUNT = "count"
    SUM_INT = "sum_int"
    SUM_FIXED = "sum_fixed"
    MEAN_INT = "mean_int"
    MEAN_FIXED = "mean_fixed"
    VALUE = "value"
    VARIANCE = "variance"
    STDDEV = "stddev"
    SKEW = "skew"
    KURTOSIS = "kurtosis"
    SUM_DECIMAL = "sum_decimal"
    MEAN_DECIMAL = "mean_decimal"
    DECAYED_SUM = "decayed_sum"
    DECAYED_MEAN = "decayed_mean"
    LATEST = "latest"
    LIST = "list"
    MOST_FREQUENT = "most_frequent"
    COUNT_DISTINCT = "count_distinct"
    APPROX_COUNT_DISTINCT = "approx_count_distinct"
    QUANTILE = "quantile"
    HISTOGRAM = "histogram"


class Source(msgspec.Struct, frozen=True):
    """One event type that a view reads. `mapping` renames: name in the view -> SQL over the event (empty: as it is)."""

    event: EventSpec
    mapping: dict[str, str] = {}


class Input(msgspec.Struct, frozen=True):
    """One user expression, its feature's `where` folded in as CASE. `type` is a name of `schemas/types.py`."""

    sql: str
    type: str


class Cell(msgspec.Struct, frozen=True):
    """A state over one input; `input` EVERY_EVENT stands for 'every event of the view'.

    `argument` is the kind's own: k, a bound, a half-life in µs. A cell that is a map of cells (BY, ELEMENTS) is keyed
    by its input and has `inner` cells; where such a cell's input is ELEMENT, it is the list's or map's own element.
    """

    kind: CellKind
    input: int
    argument: int = 0
    inner: tuple[Cell, ...] = ()
    edges: tuple[float, ...] = ()


class Calendar(msgspec.Struct, frozen=True):
    """Local periods of a time zone: "hour", "day", "week" (from Monday) or "month"."""

    unit: str
    tz: str


class Resolution(msgspec.Struct, frozen=True):
    """A tile size. Tile number = floor(t_us / hop_us); with `hop_us` 0 (`LIFETIME`) there is the one tile 0.

    `span_us`: a tile that ends more than this before the row's newest event can be read by no window; 0 = never.
    `calendar`: tiles are the local periods, numbered by features/zones.py; `hop_us` is then about their length.
    `keeps_past`: what is older than the span is not dropped but merged into one tile, that of all time before.
    """

    hop_us: int
    span_us: int
    calendar: Calendar | None = None
    keeps_past: bool = False


class WindowPlan(msgspec.Struct, frozen=True):
    """`floor(q − ending − size, hop) ≤ t < q` (or `< floor(q − ending, hop)` where ending > 0); size 0 = lifetime.

    With a `calendar`: the period that holds q, up to q; with `ago` = n the whole n-th one before it.
    `lag_us`: the part of `ending_us` by which a Lag also moves the instant that a decay is measured from.
    """

    resolution: int
    size_us: int
    ending_us: int = 0
    lag_us: int = 0
    calendar: Calendar | None = None
    ago: int = 0


class Feature(msgspec.Struct, frozen=True):
    """One value of a view. `cells` index `ViewPlan.cells`, as its finish expects them; `declared` is for people.

    `parameters` are the finish's: a quantile, k, a limit, a ttl in µs. Where the cell is a map of cells, the finish
    gives a value for each key, and `type` is the map's (or, of ELEMENTS, the list's).
    """

    name: str
    type: str
    finish: Finish
    cells: tuple[int, ...]
    window: WindowPlan
    declared: str
    parameters: dict[str, int | float] = {}


class ViewPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A feature view, windowed or of latest values. `keys`: the join keys, in the order of the entity key's bytes.

    `storage_id` (12 hex digits, of project, name and fingerprint) names the view's state in Redis.
    """

    name: str
    fingerprint: str
    storage_id: str
    entities: tuple[str, ...]
    keys: tuple[Column, ...]
    sources: tuple[Source, ...]
    where: str | None
    inputs: tuple[Input, ...]
    cells: tuple[Cell, ...]
    resolutions: tuple[Resolution, ...]
    features: tuple[Feature, ...]
    shards: int
    kind: Literal["windowed", "latest"] = "windowed"
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}

    @property
    def follows_a_topic(self) -> bool:
        """False of a view over tables and files alone: all that these hold is folded, however old it is."""
        return any(source.event.topic is not None for source in self.sources)

    def feature(self, name: str) -> Feature:
        """The feature of that name; KeyError if there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)


class DerivedFeature(msgspec.Struct, frozen=True):
    """One SQL expression over `view.feature` names and request columns."""

    name: str
    type: str
    sql: str


class DerivedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A view computed at request time, and in training sets by the same kernel. `inputs` are names of ViewPlans."""

    name: str
    fingerprint: str
    inputs: tuple[str, ...]
    uses: tuple[tuple[str, str], ...]
    """The (view, feature) pairs that the expressions read."""
    request: tuple[Column, ...]
    features: tuple[DerivedFeature, ...]
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}


class Selection(msgspec.Struct, frozen=True):
    """Some features of one view (windowed or derived), in the service's order."""

    view: str
    features: tuple[str, ...]


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one model reads. `log` is the sampled share of entities whose vectors are logged, 0 to 1."""

    name: str
    selections: tuple[Selection, ...]
    log: float
    clock: Literal["wall", "event"]
    max_lag_us: int | None
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}


class EntityPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An entity and the name of its join key."""

    name: str
    join_key: str
    type: str
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class Definitions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is declared (or applied) in one project, as one document."""

    project: str
    events: dict[str, EventSpec]
    entities: dict[str, EntityPlan]
    views: dict[str, ViewPlan]
    derived: dict[str, DerivedPlan]
    services: dict[str, ServicePlan]

    def to_json(self) -> bytes:
        """Canonical bytes: equal definitions give equal bytes."""
        return msgspec.json.encode(self, order="deterministic")

    @classmethod
    def from_json(cls, data: bytes) -> Definitions:
        """The definitions in `data`; raises msgspec.ValidationError where it is not such a document."""
        return msgspec.json.decode(data, type=cls)

    def needed(self, service: ServicePlan) -> dict[str, tuple[str, ...]]:
        """The views and features that a service's values are computed from, inputs of derived views included."""
        needed: dict[str, dict[str, None]] = {}
        for view, feature in self._reads(service):
            needed.setdefault(view, {})[feature] = None
        return {view: tuple(features) for view, features in needed.items()}

    def _reads(self, service: ServicePlan) -> Iterator[tuple[str, str]]:
        for selection in service.selections:
            if selection.view in self.views:
                yield from ((selection.view, feature) for feature in selection.features)
            else:
                yield from self.derived[selection.view].uses

    def read_by_event_clock(self, view: str) -> bool:
        """True where a service with `clock="event"` reads the view, or events are enriched by it.

        Its rows then never expire by TTL: an event may be enriched long after its own instant.
        """
        if any(spec.enriched is not None and spec.enriched.view == view for spec in self.events.values()):
            return True
        return any(s.clock == "event" and view in self.needed(s) for s in self.services.values())
