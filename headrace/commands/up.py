"""`headrace up`."""

from headrace.commands.options import Json


def up(json: Json = False) -> None:
    """Start the local Kafka and Redis, or reach those that the settings name. Data of earlier runs is kept."""
    from headrace.connections import connect
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, print_table, working
    from schemas.settings import ConnectionSettings

    settings = read_settings(ConnectionSettings)
    with working("starting Kafka and Redis") as say:
        found = connect(settings, say)
    if json:
        print_json({name: each.address for name, each in found.items()})
    else:
        print_table(["service", "address", "where"], [(n, c.address, c.where) for n, c in found.items()])
