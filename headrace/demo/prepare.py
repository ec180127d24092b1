"""The demo's first steps: services, data, declarations applied to a clean slate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from batch.settings import BatchSettings
from features.plan import Definitions
from features.served import served_topic
from headrace.connections import connect
from headrace.definitions.apply import Planned, apply, plan
from headrace.definitions.diff import refuse_new_meanings
from headrace.demo.nycflights import read_flights
from headrace.demo.over_http import SERVICE
from headrace.demo.report import Report
from headrace.demo.start_over import note_topics, start_over
from headrace.demo.timeline import BROKEN_OF_EACH, EVENTS, Timeline, timeline
from headrace.settings import read_settings
from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings
from stream.settings import StreamSettings

TOPICS = tuple(str(event.spec().topic) for event in EVENTS)
SomeSettings = TypeVar("SomeSettings", bound=ConnectionSettings)


@dataclass(frozen=True)
class Demo:
    """What the steps share."""

    settings: ConnectionSettings
    batch: BatchSettings
    stream: StreamSettings
    report: Report
    flights: pd.DataFrame
    timeline: Timeline
    planned: Planned

    @property
    def definitions(self) -> Definitions:
        return self.planned.declared


def prepare(settings: ConnectionSettings, report: Report, share: float) -> Demo:
    """Kafka and Redis up, the flights read, the views applied, nothing of an earlier run left."""
    with report.step("services", "starting Kafka and Redis") as line:
        where = connect(settings, line.now)
        line.say(", ".join(f"{name.capitalize()} at {found.address}" for name, found in where.items()))
    # A copy forgets where the local services were before they started.
    settings = _of(ConnectionSettings, settings)
    batch, stream = _of(BatchSettings, settings), _of(StreamSettings, settings)
    with report.step("data", "reading a year of flights") as line:
        flights = read_flights(share)
        messages = timeline(flights, max(1, round(BROKEN_OF_EACH * share)))
        line.say(f"{len(flights):,} flights: {len(messages):,} messages, {len(messages.broken):,} of them broken")
    with report.step("apply", "comparing the definitions with what is applied") as line:
        planned = _plan(settings)
        line.now("deleting what an earlier demo left")
        known = [each for each in (planned.declared, planned.applied) if each is not None]
        start_over(settings, batch, known, SERVICE, TOPICS)
        apply(settings, planned, line.now)
        note_topics(settings, (*TOPICS, settings.rejects_topic, served_topic(SERVICE)))
        declared = planned.declared
        line.say(
            f"applied {len(declared.views)} views, {len(declared.derived)} derived view and"
            f" {len(declared.services)} service; Feast finds them in {settings.home}"
        )
    return Demo(settings, batch, stream, report, flights, messages, planned)


def _plan(settings: ConnectionSettings) -> Planned:
    planned = plan(settings)
    if SERVICE not in planned.declared.services:
        raise ConfigError(
            f"the definitions declare no service {SERVICE!r}",
            got=f"those in {settings.definitions}",
            hint="run the demo from the project's folder, with HEADRACE_DEFINITIONS unset",
        )
    # Found out before anything is deleted.
    refuse_new_meanings(planned.diff)
    return planned


def _of(kind: type[SomeSettings], settings: ConnectionSettings) -> SomeSettings:
    return read_settings(kind, **{name: getattr(settings, name) for name in settings.model_fields_set})
