"""`headrace rebuild`."""

from typing import Annotated

import typer

from headrace.commands.complete import views
from headrace.commands.options import Json


def rebuild(view: Annotated[str, typer.Argument(help="The view.", autocompletion=views)], json: Json = False) -> None:
    """Fold a view anew, from Iceberg and then from Kafka. Until it is there, it answers 'not ready'."""
    from headrace.definitions.replace import rebuild as fold
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, say, working
    from headrace.wiring import check_view, open_project
    from schemas.settings import ConnectionSettings

    settings = read_settings(ConnectionSettings)
    project = open_project(settings)
    check_view(project.definitions, view)
    with working(f"folding {view} anew") as report:
        fold(settings, project.definitions, project.events, view, report)
    if json:
        print_json({"rebuilt": view})
    else:
        say(f"{view} is folded anew; `headrace status` shows how far")
