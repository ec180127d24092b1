"""`headrace materialize`."""

from typing import Annotated

import typer

from headrace.commands.complete import views
from headrace.commands.options import Json

Instant = "2013-06-01 or 2013-06-01T12:00:00, UTC unless it says otherwise."


def materialize(
    view: Annotated[str, typer.Argument(help="The view.", autocompletion=views)],
    start: Annotated[str, typer.Option("--from", metavar="INSTANT", help=f"The first instant: {Instant}")],
    end: Annotated[str, typer.Option("--to", metavar="INSTANT", help="The last one, inside.")],
    every: Annotated[str, typer.Option(metavar="DURATION", help="As 1h, 30m or 1d.")],
    json: Json = False,
) -> None:
    """Write a view's values at regular instants into the Iceberg table features.<view>, for analysts.

    Running it again goes on where it stopped, and adds nothing to what is there.
    """
    from headrace.run.materialize import run_materialize

    run_materialize(view, start, end, every, json)
