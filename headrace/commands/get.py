"""`headrace get`."""

from typing import Annotated

import typer

from headrace.commands.complete import keys as complete_keys
from headrace.commands.complete import services
from headrace.commands.options import Json


def get(
    service: Annotated[
        str,
        typer.Argument(help="A feature service, or features as view:feature,view:feature.", autocompletion=services),
    ],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE …", help="Join keys and request columns, as origin=JFK.", autocompletion=complete_keys
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show where each value came from.")] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Read at this instant, as 2013-06-01T12:00:00.")
    ] = None,
    json: Json = False,
) -> None:
    """Read a feature vector as a model would get it."""
    from headrace.run.get import run_get

    run_get(service, keys or [], explain, as_of, json)
