"""`headrace land`."""

from typing import Annotated

import typer

from headrace.options import Json


def land(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was there is landed.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the lander: Kafka's events, rejects and served vectors into the Iceberg event log, exactly once."""
    from batch.land import LandReport, run_lander
    from batch.settings import BatchSettings
    from headrace.settings import read_settings
    from headrace.stopping import stop_on_signals
    from headrace.terminal import print_json, say
    from headrace.ticker import ticker
    from headrace.wiring import open_project

    def counts(report: LandReport) -> str:
        return f"{report.total:,} rows, {report.rejected:,} rejects, {report.commits:,} commits"

    settings = read_settings(BatchSettings)
    project = open_project(settings)
    with stop_on_signals() as stop, ticker("landing") as tick:
        report = run_lander(
            project.definitions,
            project.events,
            settings,
            until_caught_up=until_caught_up,
            stop=stop,
            progress=lambda report: tick(counts(report), ""),
        )
    if json:
        print_json({"rows": report.rows, "rejected": report.rejected, "commits": report.commits})
    else:
        say(counts(report))
