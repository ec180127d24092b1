"""A feature as declared and as the oracle's Spec: the same thing said twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

import features
from features import Entity, FeatureView, Window
from tests.oracle import Spec
from tests.parity.world import Reading

sensor = Entity("sensor")


class Over(NamedTuple):
    """A window as declared, and as size, hop and ending in µs."""

    declared: Any
    size_us: int | None
    hop_us: int | None
    ending_us: int = 0


class Feature(NamedTuple):
    declared: Any
    spec: Spec


class Where(NamedTuple):
    sql: str
    holds: Callable[[dict[str, Any]], bool | None]


UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def us(text: str) -> int:
    return int(text[:-1]) * UNITS_US[text[-1]]


def window(size: str, hop: str | None = None, ending: str | None = None) -> Over:
    declared = Window(size, hop=hop, ending=None if ending is None else f"{ending} ago")
    return Over(declared, us(size), None if hop is None else us(hop), 0 if ending is None else us(ending))


LIFETIME = Over(None, None, None)
windows = st.one_of(
    st.just(LIFETIME),
    st.sampled_from(["1h", "6h", "12h", "3d", "12d"]).map(window),
    # Lengths that are no multiple of their hop, hops longer than the window, hops that divide no day.
    st.builds(
        window, st.sampled_from(["7m", "50m", "3h", "30h", "5d"]), st.sampled_from(["7m", "1h", "7h", "1d", "9d"])
    ),
    st.builds(
        window,
        st.sampled_from(["10m", "3h", "2d"]),
        st.sampled_from([None, "5m", "3h"]),
        st.sampled_from(["1m", "1h", "30h"]),
    ).filter(lambda over: (over.size_us + over.ending_us) / (over.hop_us or 3e8) < 1000),
)

WHERES = (
    Where("room = 1", lambda row: None if row["room"] is None else row["room"] == 1),
    Where("x IS NOT NULL", lambda row: row["x"] is not None),
)


def feature(
    kind: str,
    column: str | None,
    over: Over = LIFETIME,
    *,
    where: Where | None = None,
    by: str | None = None,
    **options: Any,
) -> Feature:
    """`kind(column, …)` over a window."""
    positional = [] if column is None else [column]
    keywords: dict[str, Any] = {"over": over.declared}
    if where is not None:
        keywords["where"] = where.sql
    if by is not None:
        keywords["by"] = by
    for name in ("k", "p", "edges", "limit", "distinct", "half_life"):
        if name in options and name in ("k", "p"):
            positional.append(options[name])
        elif name in options:
            keywords[name] = options[name]
    declared = getattr(features, kind)(*positional, **keywords)
    if "half_life" in options:
        options["half_life_us"] = us(options["half_life"])
    holds = where.holds if where is not None else (lambda row: True)
    return Feature(declared, Spec(kind, column, over.size_us, over.hop_us, over.ending_us, holds, by, options))


def view(chosen: Mapping[str, Feature], **keywords: Any) -> FeatureView:
    return FeatureView(
        "readings",
        entity=sensor,
        source=Reading,
        features={name: each.declared for name, each in chosen.items()},
        shards=2,
        **keywords,
    )
