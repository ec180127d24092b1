"""`headrace land`."""

from typing import Annotated

import typer

from headrace.commands.options import Json


def land(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was there is landed.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve /metrics, /health and /ready there; 0: on a free port.")
    ] = None,
    json: Json = False,
) -> None:
    """Run the lander: Kafka's events, rejects and served vectors into the Iceberg event log, exactly once."""
    from headrace.run.land import run_land

    run_land(until_caught_up, metrics_port, json)
