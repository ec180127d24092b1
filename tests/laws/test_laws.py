"""The laws of the cells (features/cells.py), for each kind: in SQL and Lua on the bytes of the online row, in NumPy on
the states that are decoded from it.

A history is cut into three parts A, B, C. SQL folds each part; Lua merges them in Redis; the row's bytes are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from features import states
from features.cells import WORDS, word_offsets
from features.kernel import Kernel
from features.plan import CellKind, ViewPlan
from features.records import DECODE
from schemas.row import checkpoint_redis_key, hash_redis_key, row_redis_key, shard_of
from tests.laws.cells import APPROXIMATE, SUBJECTS
from tests.oracle import Event
from tests.parity.conftest import client, kernel
from tests.parity.declared import view
from tests.parity.executors import Online
from tests.parity.world import histories, log_table

# Generated cases by the hundred: a busy machine may take its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

__all__ = ["client", "kernel"]

Part = list[tuple[str | None, Event]]
cuts = st.tuples(st.integers(0, 12), st.integers(0, 12))


def plan_of(kind: CellKind) -> ViewPlan:
    plan = view({"f": SUBJECTS[kind].make()}).plan
    assert plan.cells[0].kind is kind
    return plan


def parts_of(history: Part, cut: tuple[int, int]) -> list[Part]:
    """The history of one entity in three parts, each with its own copy of nothing: they are disjoint."""
    one = [("p", event) for _, event in history]
    bounds = [0, *sorted(min(at, len(one)) for at in cut), len(one)]
    return [one[lo:hi] for lo, hi in pairwise(bounds)]


def merged(client: redis.Redis, kernel: Kernel, plan: ViewPlan, parts: Sequence[Part]) -> tuple[Any, Any]:
    """The entity's record and HASH values after Lua has merged the parts in order."""
    online = Online(client, kernel, plan)
    for part in parts:
        online.fold([log_table(part)])
    shard = shard_of("p", plan.shards)
    row = client.get(row_redis_key(online.storage, shard, "p"))
    fields = client.hgetall(hash_redis_key(online.storage, shard, "p"))
    assert row is None or client.get(checkpoint_redis_key(online.storage, shard)) == row[:8]
    online.drop()
    return None if row is None else row[8:16] + row[24:], fields


@pytest.mark.parametrize("kind", [kind for kind in SUBJECTS if kind not in APPROXIMATE])
def test_sql_and_lua(kind: CellKind, kernel: Kernel, client: redis.Redis) -> None:
    """Split-then-merge is the whole, whatever the order and the grouping; a part without input changes nothing."""
    plan = plan_of(kind)
    subject = SUBJECTS[kind]

    @given(history=histories(subject.columns, subject.values, events_max=12), cut=cuts)
    def run(history: Part, cut: tuple[int, int]) -> None:
        a, b, c = parts_of(history, cut)
        whole = merged(client, kernel, plan, [a + b + c])
        assert merged(client, kernel, plan, [a, b, c]) == whole, "split, then merged"
        assert merged(client, kernel, plan, [c, a, b]) == whole, "commuted"
        assert merged(client, kernel, plan, [b + c, a]) == whole, "associated"
        nothing = [("p", event._replace(row=dict.fromkeys(event.row))) for _, event in a]
        assert merged(client, kernel, plan, [a, b, c, nothing]) == whole, "with the identity"

    run()


@pytest.mark.parametrize("kind", [kind for kind in SUBJECTS if kind in WORDS])
def test_numpy(kind: CellKind, kernel: Kernel) -> None:
    """Identity, associativity, commutativity, split-then-merge of the states that are decoded from records."""
    plan = plan_of(kind)
    subject = SUBJECTS[kind]
    at = word_offsets(plan.cells)[0]
    assert at is not None

    def state(part: Part) -> states.State:
        deltas = kernel.fold(plan, [log_table(part)])
        if not len(deltas.records):
            return states.zero(kind)
        return DECODE[kind](deltas.records[:1, at : at + WORDS[kind]])

    argument = plan.cells[0].argument

    def merge(one: states.State, other: states.State) -> states.State:
        return states.merge(kind, one, other, argument)

    def same(a: states.State, b: states.State) -> bool:
        if kind in APPROXIMATE:
            return all(bool(np.allclose(x, y, rtol=1e-9, atol=1e-9)) for x, y in zip(a, b, strict=True))
        return _normal(kind, a) == _normal(kind, b)

    @given(history=histories(subject.columns, subject.values, events_max=12), cut=cuts)
    def run(history: Part, cut: tuple[int, int]) -> None:
        parts = parts_of(history, cut)
        a, b, c = map(state, parts)
        assert same(merge(a, states.zero(kind)), a)
        assert same(merge(states.zero(kind), a), a)
        assert same(merge(a, b), merge(b, a))
        left = merge(merge(a, b), c)
        assert same(left, merge(a, merge(b, c)))
        assert same(left, state([each for part in parts for each in part]))
        three = tuple(np.concatenate(arrays) for arrays in zip(a, b, c, strict=True))
        ranged = states.merge_of_ranges(kind, three, np.array([0, 1]), np.array([3, 1]), argument)
        assert same(tuple(array[:1] for array in ranged), left)
        assert same(tuple(array[1:] for array in ranged), states.zero(kind))

    run()


def _normal(kind: CellKind, state: states.State) -> list[Any]:
    """Limbs without carries pending; an absent first or last without what its other words hold."""
    if kind in (CellKind.SUM_INT, CellKind.SUM_FIXED):
        limbs = state[0].tolist()[0]
        return [sum(limb << (32 * k) for k, limb in enumerate(limbs))]
    return [array.tolist() for array in state]
