"""A diff for people and for programs."""

from __future__ import annotations

from typing import Any

from headrace.definitions.diff import Action, Change, Diff
from headrace.terminal.output import out

SIGNS = {
    Action.ADD: ("+", "green"),
    Action.CHANGE: ("~", "yellow"),
    Action.REPLACE: ("±", "magenta"),
    Action.REMOVE: ("-", "red"),
}
DETAILS_MAX = 40
"""Lines of one declaration; a view of hundreds of features is not read through."""


def print_diff(diff: Diff) -> None:
    """One paragraph a declaration, then a count."""
    from rich.text import Text

    for change in diff.changes:
        sign, style = SIGNS[change.action]
        out().print(Text(f"{sign} {change.kind} {change.name}{_note(change)}", style=style))
        for line in change.details[:DETAILS_MAX]:
            out().print(Text(f"    {line}"))
        if len(change.details) > DETAILS_MAX:
            out().print(Text(f"    and {len(change.details) - DETAILS_MAX} more"))
    counts = {action: sum(change.action is action for change in diff.changes) for action in Action}
    out().print(", ".join(f"{count} to {action}" for action, count in counts.items() if count))


def diff_json(diff: Diff) -> list[dict[str, Any]]:
    """The same as data."""
    return [
        {
            "action": change.action,
            "kind": change.kind,
            "name": change.name,
            "new_meaning": change.new_meaning,
            "details": list(change.details),
        }
        for change in diff.changes
    ]


def _note(change: Change) -> str:
    if change.action is Action.REPLACE:
        return ": another meaning, brought up beside the old one"
    return ": ANOTHER MEANING, refused without --replace" if change.new_meaning else ""
