"""How commands talk: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Say = Callable[[str], None]

PIPE_WIDTH = 10_000


@cache
def out() -> Console:
    """Standard output. Text is printed as it is: no word of a user is taken for markup."""
    from rich.console import Console

    # A pipe has no width: nothing is folded there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=width)


@cache
def err() -> Console:
    """Standard error, for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """A remark on standard error."""
    err().print(text)


def print_json(value: object) -> None:
    """One JSON document on standard output; instants in ISO 8601, what JSON has no word for as text."""
    print(json.dumps(value, default=_as_json, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table without lines, which copies and greps well; columns named in `right` hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    out().print(table, soft_wrap=False)


@contextmanager
def working(what: str) -> Iterator[Say]:
    """Shows on a terminal that work goes on; the yielded function changes the words, and says them to a log file."""
    console = err()
    if not console.is_terminal:
        yield say
        return
    with console.status(what) as status:
        yield status.update


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on a terminal: the yielded function takes how much is done, and a remark."""
    if not err().is_terminal:
        yield lambda done, remark: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task(what, total=total)

        def count(done: int, remark: str) -> None:
            progress.update(task, completed=done, description=f"{what} {remark}".rstrip())

        yield count


def is_interactive() -> bool:
    """True where a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _as_json(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
