"""`headrace rejects`: list, show, replay."""

from typing import Annotated

import typer

from headrace.commands.options import Json

rejects = typer.Typer(
    help="Bad input: what was rejected, why, and its original bytes.",
    no_args_is_help=False,
    invoke_without_command=True,
)

Topic = Annotated[str | None, typer.Option(help="Of this topic alone.")]
Reason = Annotated[str | None, typer.Option(help="Of this reason alone, as bad_value.")]


@rejects.callback()
def choose(context: typer.Context) -> None:
    """Without a word behind it: how many there are, by topic and reason."""
    if context.invoked_subcommand is None:
        from headrace.run.rejects import run_counts

        run_counts()


@rejects.command("list")
def list_rejects(
    topic: Topic = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    json: Json = False,
) -> None:
    """The newest rejects: where each stood, and why it was rejected."""
    from headrace.run.rejects import run_list

    run_list(topic, reason, limit, json)


@rejects.command()
def show(
    topic: Annotated[str, typer.Argument(help="The topic that it came from.")],
    partition: Annotated[int, typer.Argument(help="Its partition.")],
    offset: Annotated[int, typer.Argument(help="Its offset.")],
    json: Json = False,
) -> None:
    """One reject with its original bytes."""
    from headrace.run.rejects import run_show

    run_show(topic, partition, offset, json)


@rejects.command()
def replay(
    topic: Topic = None,
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send rejects to their topics once more, after the schema was mended: each that is an event now, exactly once."""
    from headrace.run.replay import run_replay

    run_replay(topic, reason, dry_run, json)
