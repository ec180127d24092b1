"""`headrace verify`."""

from typing import Annotated

import typer

from headrace.commands.complete import services
from headrace.commands.options import Json


def verify(
    service: Annotated[
        str,
        typer.Argument(help="The feature service; its vectors are logged where it says log=.", autocompletion=services),
    ],
    json: Json = False,
) -> None:
    """Recompute the served vectors offline, and say which differ and why. Fails if any value is a defect."""
    from headrace.run.verify import run_verify

    run_verify(service, json)
