"""A view folded from the beginning, beside the workers, by the bounded reader of DESIGN §5.4.

It is one more writer of the view's shards, and compare-and-set makes it a harmless one: workers may fold the same view
at the same time, and whoever comes second sends what is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from features.plan import Definitions, ViewPlan
from schemas.errors import ConfigError
from schemas.event import Event
from stream.batch import Place
from stream.bringup import BringUp
from stream.checkpoint import Positions
from stream.fold import ViewFold
from stream.history import IMPORTED, History
from stream.placement import place_partition
from stream.settings import StreamSettings
from stream.store import Store
from stream.topics import admin_client, describe_topics, ranges

LOOK_EVERY_S = 0.1


class AnewProgress(NamedTuple):
    """How far it is, over all partitions: offsets folded, of how many. `waiting_for` says why there is no progress."""

    folded: int
    of: int
    waiting_for: str


def fold_anew(
    plans: Mapping[str, ViewPlan],
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    *,
    history: History | None,
    stop: threading.Event,
    progress: Callable[[AnewProgress], None] = lambda _: None,
    given: Mapping[str, bytes] | None = None,
) -> bool:
    """Folds the plans up to where their topics end now; False where `stop` was set before.

    `given`: what the tables and files among their sources hold now, by the log's name (stream/given.py). What was
    folded already, by an earlier attempt or by a worker, is not folded again. Raises DeliveryError where
    events would be skipped, ConfigError where a topic does not exist.
    """
    job, targets = _job(plans, definitions, events, settings, history, given or {})
    job.start()
    while job.is_alive() and not stop.is_set():
        for place, target in targets.items():
            if job.positions.get(place, -1) >= target:
                job.finish(place)
        progress(_progress(job, targets))
        job.join(LOOK_EVERY_S)
    job.stop()
    job.join()
    if job.error is not None:
        raise job.error
    progress(_progress(job, targets))
    return not stop.is_set()


def _job(
    plans: Mapping[str, ViewPlan],
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    history: History | None,
    given: Mapping[str, bytes],
) -> tuple[BringUp, dict[Place, int]]:
    """The reader, and up to where it reads each partition."""
    named = {spec.log_name: name for name, spec in definitions.events.items()}
    read = {s.event.topic for plan in plans.values() for s in plan.sources if s.event.topic is not None}
    admin = admin_client(settings)
    topics = describe_topics(admin, read)
    if missing := sorted(read - topics.keys()):
        raise ConfigError("topics of the view don't exist", got=", ".join(missing), hint="run `headrace apply`")
    identities = {**{name: topic.id for name, topic in topics.items()}, **given}
    folds = {
        name: ViewFold(plan, Positions(plan, identities), expires=not definitions.read_by_event_clock(name))
        for name, plan in plans.items()
    }
    logs = {*read, *given}
    landed = {} if history is None else {(t, p): end for t in logs for p, end in history.offsets(t).items()}
    held = ranges(admin, [(topic.name, partition) for topic in topics.values() for partition in topic.partitions])
    _adopt(folds, settings)
    places: dict[Place, frozenset[str]] = {}
    for place in [*held, *(place for place in landed if place[1] == IMPORTED)]:
        readers = {name: fold.positions for name, fold in folds.items() if fold.positions.entries(place)}
        if place in held:
            # Raises where what must be read is neither in Kafka nor in the history.
            place_partition(
                place,
                readers,
                held[place],
                landed.get(place, 0),
                batch_events_max=settings.batch_events_max,
                from_earliest=settings.from_earliest,
            )
        places[place] = frozenset(readers)
    targets = {place: held[place].end if place in held else landed[place] for place in places}
    used = {log: events[name] for log, name in named.items() if log in logs}
    return BringUp(folds, places, used, settings, history, landed), targets


def _adopt(folds: Mapping[str, ViewFold], settings: StreamSettings) -> None:
    store = Store.open(settings)
    try:
        for fold in folds.values():
            fold.positions.adopt(store.checkpoints(fold.plan))
    finally:
        store.close()


def _progress(job: BringUp, targets: Mapping[Place, int]) -> AnewProgress:
    folded = sum(min(job.positions.get(place, 0), target) for place, target in targets.items())
    return AnewProgress(folded, sum(targets.values()), job.patience.waiting_for)
