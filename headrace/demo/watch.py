"""How far worker and lander are: by the checkpoints in Redis and the offsets in Iceberg, not by what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from batch.catalog import Identifier, find, open_catalog
from batch.offsets import offsets_of
from batch.settings import BatchSettings
from features.plan import Definitions
from headrace.demo.processes import Process
from schemas.errors import NotReady
from stream.checkpoint import Positions
from stream.settings import StreamSettings
from stream.store import Store
from stream.topics import admin_client, describe_topics

POLL_S = 0.25
PATIENCE_S = 120.0
"""Longer than any rebalance or a slow disk; a process that died is noticed at once."""


class Folded:
    """Messages of a topic that every shard of every view has behind it."""

    def __init__(self, settings: StreamSettings, definitions: Definitions, topics: Iterable[str]) -> None:
        self._topics = describe_topics(admin_client(settings), topics)
        self._store = Store.open(settings)
        ids = {name: topic.id for name, topic in self._topics.items()}
        self._views = [Positions(plan, ids) for plan in definitions.views.values()]

    def messages(self, topic: str) -> int:
        """As of now, by the view and the shard that are furthest behind."""
        places = [(topic, partition) for partition in self._topics[topic].partitions]
        readers = [view for view in self._views if view.entries(places[0])]
        for view in readers:
            view.adopt(self._store.checkpoints(view.plan))
        return min((sum(map(view.start, places)) for view in readers), default=0)

    def close(self) -> None:
        self._store.close()


def landed_messages(settings: BatchSettings, name: Identifier, topic: str) -> int:
    """Messages of a topic that its Iceberg table has behind it."""
    table = find(open_catalog(settings), name)
    return 0 if table is None else sum(offsets_of(table).of(topic).values())


def wait_until(what: str, goal: int, look: Callable[[], int], processes: Iterable[Process]) -> None:
    """Returns when `look` answers the goal. Raises ProcessFailed, or NotReady where nothing moves any more."""
    running = list(processes)
    seen, moved = -1, time.monotonic()
    while seen < goal:
        for process in running:
            process.check()
        now = look()
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > PATIENCE_S:
            logs = ", ".join(str(process.log) for process in running)
            raise NotReady(
                f"{what}: nothing moves", got=f"{seen:,} of {goal:,} for {PATIENCE_S:.0f} s", hint=f"see {logs}"
            )
        time.sleep(POLL_S)
