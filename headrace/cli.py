"""The command line: `headrace`, one Typer app.

Commands import what they need when they run, so that `--help` costs nothing. Errors end as `error: fact; got; next
step` on standard error and a non-zero exit code: 1 for what went wrong, 2 for a wrong call, 130 and 143 for Ctrl-C and
SIGTERM. Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headrace.commands.apply import apply
from headrace.commands.demo import demo
from headrace.commands.down import down
from headrace.commands.get import get
from headrace.commands.import_ import import_
from headrace.commands.land import land
from headrace.commands.maintain import maintain
from headrace.commands.materialize import materialize
from headrace.commands.plan import plan
from headrace.commands.rebuild import rebuild
from headrace.commands.rejects import rejects
from headrace.commands.serve import serve
from headrace.commands.sql import sql
from headrace.commands.status import status
from headrace.commands.stream import stream
from headrace.commands.train import train
from headrace.commands.up import up
from headrace.commands.verify import verify
from headrace.failures import exit_code_of


class Commands(TyperGroup):
    """All commands; whatever one of them raises is explained, never dumped."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that the arguments name, and end the process with its exit code."""
        call = super().main
        sys.exit(exit_code_of(lambda: call(args, prog_name, complete_var, standalone_mode=False, **extra)))


app = typer.Typer(
    cls=Commands,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def headrace(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A streaming feature platform: declare a feature view once; stream, train and serve from it, bit for bit the same.

    Settings come from HEADRACE_… in the environment or from headrace.toml: HOME, PROJECT, DEFINITIONS,
    KAFKA_BOOTSTRAP, REDIS_URL.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Start here": {"demo": demo},
    "Local services": {"up": up, "down": down, "status": status},
    "Definitions": {"plan": plan, "apply": apply},
    "Running": {"stream": stream, "land": land, "serve": serve},
    "History": {"import": import_, "rebuild": rebuild, "maintain": maintain},
    "Answers": {"get": get, "train": train, "materialize": materialize, "sql": sql, "verify": verify},
}

app.add_typer(rejects, name="rejects", rich_help_panel="Running")
for panel, commands in GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
