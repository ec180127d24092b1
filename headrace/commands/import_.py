"""`headrace import`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.complete import events
from headrace.commands.options import Json


def import_(
    event: Annotated[str, typer.Argument(help="The event type, as Flight, or its topic.", autocompletion=events)],
    files: Annotated[list[Path], typer.Argument(metavar="FILE …", help="Parquet, CSV or JSON lines.")],
    json: Json = False,
) -> None:
    """Import history from before Kafka into the event log. A file that was imported already changes nothing."""
    from headrace.run.import_ import run_import

    run_import(event, files, json)
