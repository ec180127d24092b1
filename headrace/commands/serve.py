"""`headrace serve`."""

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None, typer.Option(help="Where to listen; 127.0.0.1 unless a setting says otherwise.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="6566 unless a setting says otherwise.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Feast's gRPC there as well; not unless it is set.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the port.")] = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Log the vectors of services with log=, to Kafka.")
    ] = True,
) -> None:
    """Run the server, in Feast's protocols."""
    from headrace.run.serve import run_serve

    run_serve(host, port, grpc_port, workers, log)
