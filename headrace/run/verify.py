"""`headrace verify`: the proof, in words."""

from __future__ import annotations

from dataclasses import asdict

import typer

from batch.settings import BatchSettings
from batch.verified import VerifyReport
from batch.verify import verify
from headrace.settings import read_settings
from headrace.terminal.output import out, print_json, print_table, say
from headrace.terminal.ticker import ticker
from headrace.wiring import evaluable_definitions

EXAMPLES_SHOWN = 10


def run_verify(service: str, json: bool) -> None:
    """Verify and print; exit code 1 where a served value is not what its events give."""
    settings = read_settings(BatchSettings)
    definitions = evaluable_definitions(settings)
    with ticker(f"verifying {service}") as tick:
        report = verify(
            definitions, service, settings, progress=lambda report: tick(f"{report.compared:,} vectors", "")
        )
    if json:
        print_json(asdict(report) | {"defects": report.defects})
    else:
        _print(report)
    if report.defects:
        raise typer.Exit(1)


def _print(report: VerifyReport) -> None:
    if not report.compared and not report.pending:
        say(f"no vector of {report.service} has been logged and landed: serve some, and run `headrace land`")
        return
    out().print(
        f"{report.equal:,} of {report.compared:,} vectors equal what the events below their checkpoints give, "
        f"{report.known_now_equal:,} also what is known by now"
    )
    if report.within_tolerance:
        out().print(f"compared within 1e-9: {', '.join(report.within_tolerance)}")
    if report.pending:
        out().print(
            f"{report.pending:,} were read from offsets that have not landed: run `headrace land`, verify again"
        )
    if report.by_cause:
        print_table(["cause", "values"], list(report.by_cause.items()), right=["values"])
    rows = [
        (each.cause, each.feature, each.instant, each.keys, each.served, each.computed)
        for each in report.examples[:EXAMPLES_SHOWN]
    ]
    if rows:
        print_table(["cause", "feature", "instant", "entity", "served", "computed"], rows)
        out().print(f"all of them: headrace sql 'SELECT * FROM verified.{report.service}'")
