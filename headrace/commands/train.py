"""`headrace train`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headrace.options import Json


class KnownAt(StrEnum):
    """Whose knowledge a training set has."""

    EVENT = "event"
    ARRIVAL = "arrival"


def train(
    service: Annotated[str, typer.Argument(help="The feature service.")],
    rows: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Parquet, CSV or Arrow: the join keys, request columns and event_timestamp; other columns stay.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: .parquet, .csv or .arrow.")],
    snapshot: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=ID", help="Pin a table to an Iceberg snapshot, as events.flights=123. Repeatable."),
    ] = None,
    memory_limit: Annotated[str | None, typer.Option(help="What the work may hold in memory, as 4GiB.")] = None,
    json: Json = False,
) -> None:
    """Build a point-in-time training set: for each row what the service would have answered at its instant."""
    from headrace.run_train import run_train

    run_train(service, rows, out, snapshot or [], memory_limit, json)
