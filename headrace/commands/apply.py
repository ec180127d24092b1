"""`headrace apply`."""

from typing import Annotated

import typer

from headrace.commands.complete import any_views
from headrace.commands.options import Json

Replace = Annotated[
    list[str] | None,
    typer.Option(
        "--replace",
        metavar="VIEW",
        autocompletion=any_views,
        help="A view whose meaning may change: the new one is brought up beside the old and takes over. Repeatable.",
    ),
]


def apply(replace: Replace = None, json: Json = False) -> None:
    """Make the definitions the applied ones: Kafka's topics, Iceberg's tables, Feast's registry.

    Shows what differs first. A name whose meaning would change is refused, except with --replace.
    """
    from headrace.definitions.apply import apply as make_it_so
    from headrace.definitions.apply import plan
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, say, working
    from headrace.terminal.show_diff import diff_json, print_diff
    from schemas.settings import ConnectionSettings

    settings = read_settings(ConnectionSettings)
    planned = plan(settings, replace or ())
    if planned.diff and not json:
        print_diff(planned.diff)
    with working("applying") as report:
        make_it_so(settings, planned, report, say)
    if json:
        print_json({"project": planned.declared.project, "changes": diff_json(planned.diff)})
    elif planned.diff:
        say(f"applied; Feast finds it in {settings.home}")
    else:
        say(f"nothing differs: {planned.loaded.folder} is applied in project {planned.declared.project!r}")
