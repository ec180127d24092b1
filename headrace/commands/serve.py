"""`headrace serve`."""

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None, typer.Option(help="Where to listen; 127.0.0.1 unless a setting says otherwise.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="6566 unless a setting says otherwise.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the port.")] = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Log the vectors of services with log=, to Kafka.")
    ] = True,
) -> None:
    """Run the HTTP server, in Feast's protocol."""
    from headrace.run.serve import run_serve

    run_serve(host, port, workers, log)
