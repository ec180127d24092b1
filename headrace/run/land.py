"""`headrace land`: the lander over the applied definitions."""

from __future__ import annotations

import threading
from collections import Counter

from batch.land import run_lander
from batch.land_report import LandReport
from batch.settings import BatchSettings
from headrace.definitions.follow import run_following
from headrace.settings import read_settings
from headrace.terminal.logs import log_to_stderr
from headrace.terminal.output import print_json, say
from headrace.terminal.stopping import stop_on_signals
from headrace.terminal.ticker import ticker
from headrace.wiring import Project


def run_land(until_caught_up: bool, metrics_port: int | None, json: bool) -> None:
    """Run until a signal, or until caught up; then say what was done."""
    log_to_stderr()
    settings = read_settings(BatchSettings, metrics_port=metrics_port)

    def work(project: Project, stop: threading.Event) -> LandReport:
        with ticker("landing") as tick:
            return run_lander(
                project.definitions,
                project.events,
                settings,
                until_caught_up=until_caught_up,
                stop=stop,
                progress=lambda report: tick(_counts(report), ""),
            )

    with stop_on_signals() as stop:
        reports = run_following(settings, stop, work)
    for report in reports if not json else ():
        say(_counts(report))
    if json:
        rows = sum((Counter(report.rows) for report in reports), Counter[str]())
        rejected, commits = sum(each.rejected for each in reports), sum(each.commits for each in reports)
        print_json({"rows": rows, "rejected": rejected, "commits": commits})


def _counts(report: LandReport) -> str:
    return f"{report.total:,} rows, {report.rejected:,} rejects, {report.commits:,} commits"
