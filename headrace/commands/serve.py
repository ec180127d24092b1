"""`headrace serve`."""

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None, typer.Option(help="Where to listen; 127.0.0.1 unless a setting says otherwise.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="6566 unless a setting says otherwise.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the port.")] = None,
) -> None:
    """Run the HTTP server, in Feast's protocol. Vectors of services with log= are logged to Kafka."""
    from headrace.run_serve import run_serve

    run_serve(host, port, workers)
