"""Invariant I in whatever order things happen; and that each step of the protocol is needed for it (mutations)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.unit.stream.simulation import ENTITIES, PARTITIONS, STEPS, Crash, Interruption, Logged, World, crash, lost

EXAMPLES = int(os.environ.get("HEADRACE_TEST_SIMULATION_RUNS", "150"))
WORKERS = st.integers(0, 2)
SOME = st.integers(0, 6)


class Delivery(RuleBasedStateMachine):
    """Everything that can befall workers and Redis, in any order."""

    broken: frozenset[str] = frozenset()
    states = 0

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.broken)
        self._values = 0
        self._step_inside = 0

    @rule(
        partition=st.integers(0, PARTITIONS - 1), entities=st.lists(st.sampled_from(ENTITIES), min_size=1, max_size=8)
    )
    def produce(self, partition: int, entities: list[str]) -> None:
        for entity in entities:
            self._values += 1
            self.world.log[partition].append(Logged(entity, 3**self._values % (1 << 61)))

    @rule(worker=WORKERS, events=st.integers(1, 5), in_background=st.booleans())
    def work(self, worker: int, events: int, in_background: bool) -> None:
        self._do(worker, events, in_background)

    @rule(worker=WORKERS, events=st.integers(1, 5), after=SOME, in_background=st.booleans())
    def work_and_die(self, worker: int, events: int, after: int, in_background: bool) -> None:
        self.world.workers[worker].store.interruption = Interruption(after, crash)
        self._do(worker, events, in_background)

    @rule(worker=WORKERS, events=st.integers(1, 5), after=SOME, in_background=st.booleans())
    def work_and_lose_the_answer(self, worker: int, events: int, after: int, in_background: bool) -> None:
        self.world.workers[worker].store.interruption = Interruption(after, lost)
        self._do(worker, events, in_background)

    @rule(worker=WORKERS, other=WORKERS, events=st.integers(1, 5), after=SOME, in_background=st.booleans())
    def work_while_another_works(self, worker: int, other: int, events: int, after: int, in_background: bool) -> None:
        if worker != other:
            interruption = Interruption(after, lambda: self._do(other, events, False))
            self.world.workers[worker].store.interruption = interruption
        self._do(worker, events, in_background)

    @rule(worker=WORKERS, after=SOME, number=st.integers(0, 3))
    def work_while_redis_goes_back(self, worker: int, after: int, number: int) -> None:
        action = (lambda: self.world.redis.roll_back(number)) if number else self.world.redis.empty
        self.world.workers[worker].store.interruption = Interruption(after, action)
        self._do(worker, 4, True)

    @rule(worker=WORKERS)
    def advance(self, worker: int) -> None:
        self._guarded(worker, self.world.workers[worker].advance)

    @rule(worker=WORKERS)
    def look(self, worker: int) -> None:
        self._guarded(worker, self.world.workers[worker].look)

    @rule(partition=st.integers(0, PARTITIONS - 1), worker=WORKERS)
    def rebalance(self, partition: int, worker: int) -> None:
        """The new owner hears of it; the old one does not: a zombie."""
        self.world.owners[partition] = worker
        self.world.workers[worker].learn()

    @rule(worker=WORKERS)
    def learn(self, worker: int) -> None:
        self.world.workers[worker].learn()

    @rule()
    def redis_is_copied(self) -> None:
        self.world.redis.keep_a_copy()

    @rule(number=st.integers(0, 3))
    def redis_goes_back(self, number: int) -> None:
        self.world.redis.roll_back(number)

    @rule()
    def redis_is_emptied(self) -> None:
        self.world.redis.empty()

    @rule()
    def the_view_is_rebuilt(self) -> None:
        self.world.redis.forget_checkpoints()

    @invariant()
    def rows_are_the_fold_of_what_lies_below_the_checkpoint(self) -> None:
        type(self).states += 1
        self.world.check()

    def teardown(self) -> None:
        self.world.drain()
        self.world.check()

    def _do(self, worker: int, events: int, in_background: bool) -> None:
        self._guarded(worker, lambda: self.world.workers[worker].step(events, in_background=in_background))

    def _guarded(self, worker: int, action: object) -> None:
        try:
            action()  # type: ignore[operator]
        except Crash:
            self.world.crash(worker)


def run(machine: type[Delivery], examples: int, *, shrink: bool) -> None:
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            phases=phases,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_invariant_holds_in_any_order() -> None:
    run(Delivery, EXAMPLES, shrink=True)
    assert Delivery.states > 10 * EXAMPLES
    print(f"{EXAMPLES} runs, {Delivery.states} states")


@pytest.mark.parametrize("step", STEPS)
def test_without_a_step_of_the_protocol_a_wrong_state_is_found(step: str) -> None:
    """A test of the test: leave the step out, and the simulation says so."""

    class Broken(Delivery):
        broken = frozenset({step})

    with pytest.raises(AssertionError):
        run(Broken, 1_000, shrink=False)
