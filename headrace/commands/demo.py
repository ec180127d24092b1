"""`headrace demo`."""

from typing import Annotated

import typer

from headrace.commands.options import Json


def demo(
    share: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="How much of each month's days to take: 0.1 for a quick look.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Run the main job on 336,776 real flights: stream, land, train, serve, and prove every served vector.

    Each run starts over; what else is in HEADRACE_HOME stays as it is. Exits non-zero if any count, verification or
    comparison is off.
    """
    from pathlib import Path

    import features
    from headrace.demo.run import run_demo
    from headrace.settings import read_settings
    from headrace.terminal.output import err, out, print_json
    from schemas.settings import ConnectionSettings

    settings = read_settings(ConnectionSettings)
    if "definitions" not in settings.model_fields_set and not settings.definitions.is_dir():
        # Installed, and run from anywhere: the views that come with headrace.
        settings = settings.model_copy(update={"definitions": Path(features.__path__[0]) / "views"})
    report = run_demo(settings, err(), share)
    if json:
        print_json(report.document())
    else:
        out().print(report.panel())
    if not report.ok:
        raise typer.Exit(1)
