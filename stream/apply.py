"""Micro-batches -> Redis: exactly once, whatever fails on the way. DESIGN §5.

One batch is under way while the next is folded: its calls are made as if the one before had merged, and where it had
not, Redis refuses them too. After a refusal, or an answer that never came, the checkpoints are read again and say what
is missing: a batch is kept until each of its calls has merged.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol

from features.kernel import Kernel
from schemas.errors import DeliveryError
from stream.batch import MicroBatch, Move, Place
from stream.checkpoint import Positions
from stream.fold import ViewFold
from stream.patience import Patience
from stream.store import Answer, Call, Store, StoreUnavailable

ATTEMPTS_MAX = 100
"""Refusals in a row, each after reading the checkpoints anew: two workers can't be in each other's way that often."""

log = logging.getLogger(__name__)


class _Flight(NamedTuple):
    """A batch whose calls were sent; `before`: what Redis had for certain when they were made."""

    batch: MicroBatch
    advance: bool
    before: dict[str, Positions]
    answers: Future[list[Answer]]


class _Run(Protocol):
    def __call__(self, run: Callable[[list[Call]], list[Answer]], calls: list[Call], /) -> Future[list[Answer]]: ...


def _now(run: Callable[[list[Call]], list[Answer]], calls: list[Call]) -> Future[list[Answer]]:
    """A few calls are made before another thread would have woken up."""
    done: Future[list[Answer]] = Future()
    try:
        done.set_result(run(calls))
    except StoreUnavailable as error:
        done.set_exception(error)
    return done


class Applier:
    """Folds batches into the views that are live on their partitions.

    A (view, partition) is live from `join` on; it must then get every event from the positions it joined with. `lost`
    collects partitions for which Redis went back behind what it had: nothing of them is folded until they join again.
    `is_mine` says whether a partition is still this worker's to fold.
    """

    def __init__(
        self,
        folds: Mapping[str, ViewFold],
        store: Store,
        kernel: Kernel,
        patience: Patience,
        is_mine: Callable[[Place], bool] = lambda place: True,
    ) -> None:
        self.lost: set[Place] = set()
        self.counts: Counter[str] = Counter()
        self.redis_s = 0.0
        self.live: dict[str, set[Place]] = {name: set() for name in folds}
        self.folds = dict(folds)
        self._store = store
        self._kernel = kernel
        self._patience = patience
        self._is_mine = is_mine
        self._sender = ThreadPoolExecutor(1, "redis")
        self._flight: _Flight | None = None
        self._certain: dict[str, Positions] = {}
        """What Redis had for certain before the batch that is being done again."""

    def close(self) -> None:
        """Ends the sending thread; what is under way is left to itself."""
        self._sender.shutdown(wait=True)

    def refresh(self) -> dict[str, Positions]:
        """Reads all checkpoints, nothing being under way. What a live partition has lost since is found."""
        self.settle()
        for name, fold in self.folds.items():
            known = fold.positions.copy()
            self._patience.until_done(partial(self._adopt, name, fold, known))
        return {name: fold.positions for name, fold in self.folds.items()}

    def join(self, view: str, place: Place) -> None:
        """From now on the view gets the partition's events, from the positions of the last `refresh` on."""
        self.live[view].add(place)

    def leave(self, place: Place) -> None:
        """The partition's events are folded no more."""
        for places in self.live.values():
            places.discard(place)
        self.lost.discard(place)

    @property
    def is_idle(self) -> bool:
        """True where nothing is under way."""
        return self._flight is None

    def apply(self, batch: MicroBatch, *, at_once: bool = False) -> None:
        """Folds a batch. When this returns the one before has merged; this one is under way or, `at_once`, merged."""
        self._send(batch, advance=False, run=_now if at_once else self._sender.submit)
        if at_once:
            self.settle()

    def advance(self, moves: Mapping[Place, Move]) -> None:
        """Moves the checkpoints of all shards of the live views to the moves' ends, below which all was applied."""
        self._send(MicroBatch({}, dict(moves)), advance=True, run=_now)
        self.settle()

    def settle(self) -> bool:
        """Returns when nothing is under way any more; False where something had to be done again."""
        flight, self._flight = self._flight, None
        if flight is None:
            return True
        try:
            answers = flight.answers.result()
        except StoreUnavailable as error:
            log.warning("an answer of Redis is missing: %s", error)
            answers = []
        else:
            if all(answer.merged for answer in answers):
                self.counts["too_late"] += sum(answer.too_late for answer in answers)
                return True
        self._redo(flight)
        return False

    def _send(self, batch: MicroBatch, *, advance: bool, run: _Run) -> None:
        before, calls = self._prepare(batch, advance)
        if not self.settle():
            before, calls = self._prepare(batch, advance)
        if calls:
            self.counts["calls"] += len(calls)
            self.counts["batches"] += not advance
            self._flight = _Flight(batch, advance, before, run(self._run, calls))

    def _prepare(self, batch: MicroBatch, advance: bool) -> tuple[dict[str, Positions], list[Call]]:
        before = {name: fold.positions.copy() for name, fold in self.folds.items()}
        calls = [call for name, fold in self.folds.items() for call in self._calls(name, fold, batch, advance)]
        return before, calls

    def _calls(self, name: str, fold: ViewFold, batch: MicroBatch, advance: bool) -> list[Call]:
        mine = batch.only({place for place in self.live[name] if place in batch.moves})
        if not mine.moves:
            return []
        return fold.advance(mine.moves) if advance else fold.calls(self._kernel, mine)

    def _run(self, calls: list[Call]) -> list[Answer]:
        began = time.perf_counter()
        try:
            return self._store.run(calls)
        finally:
            self.redis_s += time.perf_counter() - began

    def _redo(self, flight: _Flight) -> None:
        """Does again what is missing of a batch, as often as it takes, and however long Redis needs."""
        self._certain |= flight.before
        for name in self.folds:
            attempts = 0
            while not self._patience.until_done(partial(self._attempt, name, flight)):
                self.counts["refused"] += 1
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    raise DeliveryError(
                        "the checkpoints change faster than they can be read",
                        where=f"view {name!r}",
                        got=f"{ATTEMPTS_MAX} refusals in a row",
                        hint="is a program outside the consumer group writing to this Redis?",
                    )

    def _attempt(self, name: str, flight: _Flight) -> bool:
        """True where nothing is missing of the batch in a view. Raises StoreUnavailable: the next attempt finds out."""
        fold = self.folds[name]
        self._adopt(name, fold, self._certain[name])
        self._certain[name] = fold.positions.copy()
        calls = self._calls(name, fold, flight.batch, flight.advance)
        answers = self._run(calls) if calls else []
        self.counts["too_late"] += sum(answer.too_late for answer in answers)
        return all(answer.merged for answer in answers)

    def _adopt(self, name: str, fold: ViewFold, known: Positions) -> None:
        """Takes what Redis says, which may be more than `known` (another worker folded it), but not less."""
        fold.positions.adopt(self._store.checkpoints(fold.plan))
        for place in list(self.live[name]):
            if not self._is_mine(place):
                self.live[name].discard(place)
            elif fold.positions.is_behind(known, place):
                log.warning("Redis went back: view %s, %s/%s is placed anew", name, *place)
                self.live[name].discard(place)
                self.lost.add(place)
