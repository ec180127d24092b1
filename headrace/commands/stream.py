"""`headrace stream`."""

from enum import StrEnum
from typing import Annotated

import typer

from headrace.commands.options import Json


class Runner(StrEnum):
    """What drives the fold."""

    CONFLUENT = "confluent"
    FAUST = "faust"
    SPARK = "spark"


def stream(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was there is folded.")
    ] = False,
    runner: Annotated[Runner, typer.Option(help="What drives the fold.")] = Runner.CONFLUENT,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve /metrics, /health and /ready there; 0: on a free port.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a stream worker: Kafka's events folded into Redis, exactly once. Any number of them share the work."""
    from headrace.run.stream import run_stream

    run_stream(runner.value, until_caught_up, metrics_port, json)
