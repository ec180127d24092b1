"""A stream worker: Kafka's events folded into Redis, exactly once. `headrace stream` runs this."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from features.plan import Definitions
from schemas.errors import ConfigError
from schemas.event import Event
from stream.capabilities import check_runner
from stream.feed import Feed
from stream.history import History
from stream.report import Progress, WorkerReport
from stream.runners.confluent import ConfluentRunner
from stream.settings import StreamSettings
from stream.source import Source

if TYPE_CHECKING:
    from stream.runners.spark import SparkRunner

COLLECT_AFTER_OBJECTS = 500_000
"""Of net growth: 100 MB at most wait for the collector."""


def run_worker(
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    *,
    history: History | None,
    until_caught_up: bool,
    stop: threading.Event,
    progress: Progress = lambda report: None,
    runner: str = "confluent",
    load: Callable[[], Mapping[str, type[Event]]] | None = None,
) -> WorkerReport:
    """Folds the topics of `definitions` into Redis until `stop` is set, or all that was there is folded.

    `events`: the event types by name (`definitions.events`). `progress` gets a report about every second. Any number of
    workers share the partitions. Raises DeliveryError rather than skip or double an event, ConfigError for an
    environment that can't work or a `runner` (stream/capabilities.py) that can't do what is declared; a service that is
    down is waited for, and the report says so. `load` loads `events` anew, in other processes:
    the runner spark needs it.
    """
    check_runner(runner, definitions)
    if runner == "spark":
        spark = _spark_runner()(
            definitions,
            events,
            load or partial(dict, events),
            settings,
            history=history,
            until_caught_up=until_caught_up,
            stop=stop,
            progress=progress,
        )
        return spark.run()
    worker = ConfluentRunner(
        definitions,
        events,
        settings,
        history=history,
        until_caught_up=until_caught_up,
        stop=stop,
        progress=progress,
        open_feed=_FEEDS[runner],
    )
    with rare_collections():
        return worker.run()


@contextmanager
def rare_collections() -> Iterator[None]:
    """A micro-batch makes 100,000 objects and lets them go again, none in a cycle: searching them doubled its cost."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _open_source(settings: StreamSettings) -> Feed:
    return Source(settings, group=f"{settings.project}.stream")


def _spark_runner() -> type[SparkRunner]:
    try:
        from stream.runners.spark import SparkRunner  # noqa: PLC0415  # Spark is an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            "Spark is not installed", got=str(error), hint="run `make spark`, or: pip install 'headrace[stream,spark]'"
        ) from None
    return SparkRunner


def _open_faust(settings: StreamSettings) -> Feed:
    try:
        from stream.runners.faust import FaustFeed  # noqa: PLC0415  # Faust is an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            "Faust is not installed", got=str(error), hint="install the extra: pip install 'headrace[stream,faust]'"
        ) from None
    return FaustFeed(settings)


_FEEDS: dict[str, Callable[[StreamSettings], Feed]] = {"confluent": _open_source, "faust": _open_faust}
