"""`headrace import`: files into the event log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer

from batch.imports import ImportReport, import_history
from batch.settings import BatchSettings
from headrace.settings import read_settings
from headrace.terminal.output import print_json, print_table, say
from headrace.terminal.ticker import ticker
from headrace.wiring import Project, open_project
from schemas.errors import RequestError

EXAMPLES_SHOWN = 5


def run_import(event: str, files: Sequence[Path], json: bool) -> None:
    """Import and say what was refused; exit code 1 where every row was."""
    settings = read_settings(BatchSettings)
    project = open_project(settings)
    name = _event_name(project, event)
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise RequestError("there is no such file", got=", ".join(missing), hint="name Parquet, CSV or JSON files")
    with ticker(f"importing {len(files)} files as {name}") as tick:
        report = import_history(
            project.events, name, files, settings, progress=lambda report: tick(f"{report.rows:,} rows", "")
        )
    if json:
        print_json(
            {
                "rows": report.rows,
                "rejected": len(report.rejections),
                "known_before": [str(file) for file in report.known_before],
            }
        )
    else:
        _print(report)
    if report.rejections and not report.rows:
        raise typer.Exit(1)


def _event_name(project: Project, event: str) -> str:
    """The event type of that name or topic."""
    if event in project.events:
        return event
    for name, spec in project.definitions.events.items():
        if event == spec.topic:
            return name
    known = ", ".join(f"{name} (topic {spec.topic})" for name, spec in project.definitions.events.items())
    raise RequestError("no such event type", got=repr(event), hint=f"there are: {known}")


def _print(report: ImportReport) -> None:
    say(f"{report.rows:,} rows imported, {len(report.rejections):,} rejected")
    for file in report.known_before:
        say(f"{file} had been imported before and changed nothing")
    if report.rejections:
        reasons = Counter(str(rejection.reason) for rejection in report.rejections)
        print_table(["reason", "rows"], reasons.most_common(), right=["rows"])
        for rejection in report.rejections[:EXAMPLES_SHOWN]:
            say(f"for example: {rejection.detail}")
        say("all of them: headrace rejects list")
