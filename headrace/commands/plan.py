"""`headrace plan`."""

from headrace.commands.options import Json


def plan(json: Json = False) -> None:
    """Show what differs between the definitions and what is applied. Changes nothing."""
    from headrace.definitions.apply import plan as compare
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, say
    from headrace.terminal.show_diff import diff_json, print_diff
    from schemas.settings import ConnectionSettings

    planned = compare(read_settings(ConnectionSettings))
    if json:
        print_json({"project": planned.declared.project, "changes": diff_json(planned.diff)})
    elif planned.diff:
        print_diff(planned.diff)
        say("`headrace apply` makes it so")
    else:
        say(f"nothing differs: {planned.loaded.folder} is applied in project {planned.declared.project!r}")
