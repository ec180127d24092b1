"""`headrace sql`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.options import Json


def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT; without it a shell is opened.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answer to a .parquet, .csv or .arrow file.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask the Iceberg tables in DuckDB's SQL: events.<topic>, features.<view>, served.<service>, rejects."""
    from headrace.run.sql import run_query, run_script, run_shell
    from headrace.terminal.output import is_interactive

    if query is not None:
        run_query(query, out, json)
    elif is_interactive():
        run_shell()
    else:
        run_script(json)
