"""`headrace status`."""

from headrace.commands.options import Json


def status(json: Json = False) -> None:
    """Show whether Kafka and Redis answer, where they are, and how far the workers have come."""
    from headrace.run.status import look
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, working
    from schemas.settings import ConnectionSettings

    with working("looking"):
        state = look(read_settings(ConnectionSettings))
    if json:
        print_json(state.as_json())
    else:
        state.print()
