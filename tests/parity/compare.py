"""One body for every feature: a history goes through both executors, and each answer is the oracle's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import redis
from hypothesis import note

from features.kernel import Kernel
from features.plan import ViewPlan
from tests import oracle
from tests.parity.declared import Feature
from tests.parity.executors import Online, offline
from tests.parity.world import SENSORS, START_US, log_table

History = Sequence[tuple[str | None, oracle.Event]]


def check(
    kernel: Kernel,
    client: redis.Redis,
    plan: ViewPlan,
    chosen: Mapping[str, Feature],
    history: History,
    batches: Sequence[int],
    ahead_us: Sequence[int],
    cases: Counter[str],
    tables: Callable[[History], list[pa.Table]] = lambda history: [log_table(history)],
) -> None:
    """Offline at events' own instants and just after them; online after each batch, at instants after its newest event.

    `batches` are the lengths of the micro-batches, in order of arrival; `ahead_us` how far the online reads look ahead.
    """
    shown = [(sensor, event._replace(row=_filled(event.row))) for sensor, event in history]
    note(f"history, batches of {list(batches)}: {shown}")
    expected = lambda events, key, q: {  # noqa: E731
        name: oracle.value(each.spec, [event for sensor, event in events if sensor == key], q)
        for name, each in chosen.items()
    }
    instants = sorted(
        {event.t + d for _, event in history[::4] for d in (0, 1)} | {_around(history) + a for a in ahead_us}
    )
    queries = [(key, q) for key in (*SENSORS, "never seen") for q in instants]
    answers = offline(kernel, plan, tables(history), queries)
    for (key, q), answer in zip(queries, answers, strict=True):
        same(plan, chosen, answer, expected(history, key, q), f"offline {key} at {q}")
    online = Online(client, kernel, plan)
    folded = 0
    reads = 0
    for size in [*batches, len(history)]:
        batch = history[folded : folded + size]
        folded = min(folded + size, len(history))
        online.fold(tables(batch))
        newest = max((event.t for _, event in history[:folded]), default=START_US)
        for ahead in ahead_us[:2] if folded < len(history) else ahead_us:
            answers = online.read([*SENSORS, "never seen"], newest + ahead)
            for key, answer in zip((*SENSORS, "never seen"), answers, strict=True):
                want = expected(history[:folded], key, newest + ahead)
                same(plan, chosen, answer, want, f"online {key} at newest + {ahead} after {folded} events")
                reads += 1
    online.drop()
    cases["histories"] += 1
    cases["values offline"] += len(queries) * len(chosen)
    cases["values online"] += reads * len(chosen)


def _around(history: History) -> int:
    return max((event.t for _, event in history), default=START_US)


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def same(plan: ViewPlan, chosen: Mapping[str, Feature], answer: dict[str, Any], want: dict[str, Any], at: str) -> None:
    """Asserts that every feature is what the oracle says."""
    for name, each in chosen.items():
        got = _as(answer[name], want[name])
        assert _equal(each.spec.kind, got, want[name]), (
            f"{each.declared!r}, {at}: got {got!r}, the oracle says {want[name]!r}"
        )


def _as(got: Any, want: Any) -> Any:
    """Maps, which Arrow gives as lists of pairs, as dicts where a map is wanted."""
    if isinstance(want, dict) and isinstance(got, list):
        pairs = dict(got)
        return {key: _as(value, want.get(key)) for key, value in pairs.items()}
    return got


def _equal(kind: str, got: Any, want: Any) -> bool:
    if isinstance(got, float) and isinstance(want, float) and kind in oracle.APPROXIMATE:
        return abs(got - want) <= 1e-9 * max(1.0, abs(want))
    if isinstance(want, list | tuple):
        return isinstance(got, list) and len(got) == len(want) and all(map(_equal, [kind] * len(got), got, want))
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(_equal(kind, got[k], want[k]) for k in got)
    if isinstance(want, float):
        return isinstance(got, float) and (got == want and math.copysign(1, got) == math.copysign(1, want))
    if isinstance(want, Decimal | datetime):
        return bool(got == want)
    return type(got) is type(want) and bool(got == want)
