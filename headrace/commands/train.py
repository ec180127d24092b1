"""`headrace train`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.complete import services
from headrace.commands.options import Json


class KnownAt(StrEnum):
    """Whose knowledge a training set has."""

    EVENT = "event"
    ARRIVAL = "arrival"


class Engine(StrEnum):
    """What computes a training set."""

    LOCAL = "local"
    SPARK = "spark"


def train(
    service: Annotated[str | None, typer.Argument(help="The feature service.", autocompletion=services)] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parquet, CSV or Arrow: the join keys, request columns and event_timestamp; other columns stay.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it: .parquet (with a manifest beside it), .csv or .arrow."),
    ] = None,
    known_at: Annotated[
        KnownAt, typer.Option(help="What was true at each instant, or what had arrived by then.")
    ] = KnownAt.EVENT,
    snapshot: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=ID", help="Pin a table to an Iceberg snapshot, as events.flights=123. Repeatable."),
    ] = None,
    memory_limit: Annotated[str | None, typer.Option(help="What the work may hold in memory, as 4GiB.")] = None,
    engine: Annotated[Engine, typer.Option(help="This machine, or Spark for what it can't do.")] = Engine.LOCAL,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make the training set of a manifest again: are the bytes the same?"),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="With --manifest: let go of the snapshots that it keeps.")
    ] = False,
    json: Json = False,
) -> None:
    """Build a point-in-time training set: for each row what the service would have answered at its instant."""
    from headrace.run.train import Wanted, run_again, run_release, run_train
    from schemas.errors import RequestError

    if manifest is not None:
        if service is not None or rows is not None or snapshot:
            raise RequestError("a manifest says everything itself", hint="leave SERVICE, --rows and --snapshot out")
        if release:
            run_release(manifest, json)
        else:
            run_again(manifest, out, memory_limit, json)
    elif service is None or rows is None or out is None:
        raise RequestError(
            "a training set is of a service, from rows, to a file",
            got=f"SERVICE {service}, --rows {rows}, --out {out}",
            hint="write headrace train SERVICE --rows FILE --out FILE",
        )
    else:
        run_train(Wanted(service, rows, out, known_at.value, snapshot or [], memory_limit, engine.value), json)
