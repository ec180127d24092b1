"""What the demo says: a line a step while it works, a panel at the end, and the same as demo.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

Figure = int | float | str | bool


@dataclass(frozen=True)
class Check:
    """Something that must be equal to what was expected."""

    name: str
    got: int
    expected: int
    of: str

    @property
    def ok(self) -> bool:
        return self.got == self.expected


@dataclass
class Report:
    """Everything that the demo found out, in the order in which it did."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where every check holds; False too where none was made."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[Line]:
        """One step: a spinner (or a bar) while it works, a line with its time when it is done."""
        started = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        line = Line(what)
        with Progress(*columns, console=self.console, transient=True) as progress:
            line.attach(progress)
            yield line
        self.seconds[name] = round(time.monotonic() - started, 2)
        self.console.print(f"[green]✓[/] {line.said or what} [dim]{self.seconds[name]:.1f} s[/]", highlight=False)

    def check(self, name: str, got: int, expected: int, of: str) -> None:
        """Notes a comparison; the demo goes on and fails at its end, so that everything that is off is seen at once."""
        check = Check(name, got, expected, of)
        self.checks.append(check)
        if not check.ok:
            self.console.print(f"[red]✗ {check.of}: {check.got:,}; expected {check.expected:,}[/]", highlight=False)

    def panel(self) -> Panel:
        """The summary."""
        table = Table.grid(padding=(0, 2))
        for check in self.checks:
            count = f"{check.got:,}" if check.ok else f"{check.got:,} of {check.expected:,}"
            table.add_row("[green]✓[/]" if check.ok else "[red]✗[/]", Text(count, justify="right"), check.of)
        for note in self.notes:
            table.add_row("", "", note)
        verdict = "[green]all checks hold[/]" if self.ok else "[red]not all checks hold[/]"
        total = sum(self.seconds.values())
        return Panel(table, title="headrace demo", subtitle=f"{verdict} · {total:.0f} s", expand=False)

    def document(self) -> dict[str, object]:
        """What demo.json holds: the figures by name, the seconds by step, the checks, and whether all is well."""
        checks = {
            check.name: {"got": check.got, "expected": check.expected, "ok": check.ok, "what": check.of}
            for check in self.checks
        }
        return {**self.figures, "seconds": self.seconds, "checks": checks, "ok": self.ok}

    def write(self, path: Path) -> None:
        """Writes the document, all or nothing."""
        scratch = path.with_suffix(".json.new")
        scratch.write_text(json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n")
        scratch.replace(path)


class Line:
    """The line of a step that is at work. Bars are made as they are first heard of."""

    def __init__(self, what: str) -> None:
        self.said = ""
        self._what = what
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def attach(self, progress: Progress) -> None:
        """Shows the line in a running display."""
        self._progress = progress
        self._bars[""] = progress.add_task(self._what, total=None)

    def bar(self, name: str, done: int, total: int) -> None:
        """How far a part of the step is. May be called from any thread."""
        if self._progress is None:
            return
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._bars[name], completed=done, total=total)

    def now(self, text: str) -> None:
        """What is being done at the moment."""
        if self._progress is not None:
            self._progress.update(self._bars[""], description=text)

    def say(self, text: str) -> None:
        """What stands in the line when the step is done."""
        self.said = text
