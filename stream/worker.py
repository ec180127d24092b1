"""A stream worker: Kafka's events folded into Redis, exactly once. `headrace stream` runs this."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from features.plan import Definitions
from schemas.event import Event
from stream.history import History
from stream.report import Progress, WorkerReport
from stream.runners.confluent import ConfluentRunner
from stream.settings import StreamSettings


def run_worker(
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    *,
    history: History | None,
    until_caught_up: bool,
    stop: threading.Event,
    progress: Progress = lambda report: None,
) -> WorkerReport:
    """Folds the topics of `definitions` into Redis until `stop` is set, or all that was there is folded.

    `events`: the event types by name (`definitions.events`). `progress` gets a report about every second. Any number of
    workers share the partitions. Raises DeliveryError rather than skip or double an event, ConfigError for an
    environment that can't work; a service that is down is waited for, and the report says so.
    """
    runner = ConfluentRunner(
        definitions,
        events,
        settings,
        history=history,
        until_caught_up=until_caught_up,
        stop=stop,
        progress=progress,
    )
    return runner.run()
