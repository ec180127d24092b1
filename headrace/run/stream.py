"""`headrace stream`: a worker over the applied definitions, restored from Iceberg where Redis has lost something."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from features.plan import Definitions
from headrace.definitions.follow import run_following
from headrace.settings import read_settings, settings_for
from headrace.terminal.logs import log_to_stderr
from headrace.terminal.output import print_json, say
from headrace.terminal.stopping import stop_on_signals
from headrace.terminal.ticker import ticker
from headrace.wiring import Project, event_types_of
from stream.enrich import LATE_COUNTS, WRITTEN, Lookup
from stream.enriching import work_enriching
from stream.given import GivenHistory, fold_given
from stream.report import WorkerReport
from stream.settings import StreamSettings
from stream.worker import run_worker


def run_stream(runner: str, until_caught_up: bool, metrics_port: int | None, json: bool) -> None:
    """Run until a signal, or until caught up; then say what was done."""
    log_to_stderr()
    settings = read_settings(StreamSettings, metrics_port=metrics_port)

    def work(project: Project, stop: threading.Event) -> WorkerReport:
        history = _history(settings, project.definitions)
        with ticker(f"folding {', '.join(project.definitions.views)}") as tick:

            def fold(stop: threading.Event) -> WorkerReport:
                if history is not None:
                    fold_given(project.definitions, project.events, settings, history, stop)
                return run_worker(
                    project.definitions,
                    project.events,
                    settings,
                    history=history,
                    until_caught_up=until_caught_up,
                    stop=stop,
                    progress=lambda report: tick(_counts(report), report.waiting_for),
                    runner=runner,
                    load=partial(event_types_of, settings.definitions.absolute()),
                )

            return work_enriching(
                project.definitions,
                project.events,
                settings,
                fold,
                partial(_lookup, settings, project.definitions),
                until_caught_up=until_caught_up,
                stop=stop,
            )

    with stop_on_signals() as stop:
        reports = run_following(settings, stop, work)
    for report in reports if not json else ():
        say(_counts(report))
    if json:
        print_json(_as_json(reports))


def _history(settings: StreamSettings, definitions: Definitions) -> GivenHistory | None:
    """The event log in Iceberg, tables and files; None on a host without it: there, views come from Kafka alone."""
    try:
        from batch.history import IcebergHistory
        from batch.settings import BatchSettings
    except ModuleNotFoundError as error:
        say(f"{error.name} is not installed: views are restored from Kafka alone (pip install 'headrace[batch]')")
        return None
    return IcebergHistory(settings_for(BatchSettings, settings), definitions)


def _lookup(settings: StreamSettings, definitions: Definitions) -> Lookup:
    """The online store, where events are enriched by it."""
    from headrace.run.lookup import OnlineLookup

    return OnlineLookup(settings, definitions)


def _counts(report: WorkerReport) -> str:
    parts = [f"{report.events:,} events", f"{report.rejected_total:,} rejected"]
    if report.copies:
        parts.append(f"{report.copies:,} copies dropped")
    if WRITTEN:
        parts.append(f"{WRITTEN.total():,} enriched, {LATE_COUNTS.total():,} of them too late to be known")
    parts += [
        f"bringing up {', '.join(each.views)} from {each.topic}-{each.partition}: {each.position:,} of {each.target:,}"
        for each in report.bringing_up
    ]
    if report.caught_up:
        parts.append("caught up")
    return ", ".join(parts)


def _as_json(reports: list[WorkerReport]) -> dict[str, Any]:
    """The sums; `runs` has each run's own: there is one more whenever other definitions were applied."""
    runs = [report._asdict() | {"bringing_up": [each._asdict() for each in report.bringing_up]} for report in reports]
    return {
        "events": sum(report.events for report in reports),
        "rejected": sum(report.rejected_total for report in reports),
        "caught_up": reports[-1].caught_up,
        "enriched": dict(WRITTEN),
        "enriched_late": dict(LATE_COUNTS),
        "runs": runs,
    }
