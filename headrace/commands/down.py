"""`headrace down`."""

from headrace.commands.options import Json


def down(json: Json = False) -> None:
    """Stop the local Kafka and Redis of this HEADRACE_HOME, and nothing else. Their data stays."""
    from headrace.local.services import down as stop
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, say, working
    from schemas.settings import ConnectionSettings

    settings = read_settings(ConnectionSettings)
    with working("stopping Kafka and Redis") as report:
        stopped = stop(settings.home, report)
    if json:
        print_json({"stopped": stopped})
    elif stopped:
        say(f"stopped {' and '.join(stopped)}; the data stays in {settings.home}")
    else:
        say(f"nothing of {settings.home} was running")
