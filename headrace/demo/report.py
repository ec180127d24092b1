"""What the demo says: a line a step while it works, a panel at the end, and the same as demo.json."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

Figure = int | float | str | bool
REMARK_EVERY_S = 5.0
"""How often a log file (where no bar can move) hears how far a step is."""


ORDER = ("events_", "landed_", "rejected_", "training_", "served_", "vectors_")
"""How the summary is read: from what went in to what came out, by the beginning of a check's name."""


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
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where every check holds; False too where none was made."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[Line]:
        """One step: a spinner and bars while it works, a line with its time when it is done."""
        started = time.monotonic()
        with Line(what, self.console) as line:
            yield line
        self.seconds[name] = round(time.monotonic() - started, 2)
        done = Text.assemble(("✓ ", "green"), line.said or what, (f"  {self.seconds[name]:.1f} s", "dim"))
        self.console.print(done)

    def check(self, name: str, got: int, expected: int, of: str) -> None:
        """Notes a comparison; the demo goes on and fails at its end, so that everything that is off is seen at once."""
        check = Check(name, got, expected, of)
        self.checks.append(check)
        if not check.ok:
            self.console.print(Text(f"✗ {of}: {got:,}; expected {expected:,}", "red"))

    def panel(self) -> Panel:
        """The summary."""
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        for check in sorted(self.checks, key=_place):
            count = f"{check.got:,}" if check.ok else f"{check.got:,} of {check.expected:,}"
            table.add_row(Text("✓", "green") if check.ok else Text("✗", "red"), Text(count), Text(check.of))
        for number, words in self.notes:
            table.add_row("", Text(number), Text(words))
        verdict = ("all of it holds", "green") if self.ok else ("not all of it holds", "red")
        total = Text.assemble(" ", verdict, f" · {sum(self.seconds.values()):.0f} s ")
        return Panel(table, title=" headrace demo ", subtitle=total, expand=False)

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
    """A step at work: bars on a terminal, a remark now and then in a log file. For any thread."""

    def __init__(self, what: str, console: Console) -> None:
        self.said = ""
        self._what = what
        self._console = console
        self._shares: dict[str, str] = {}
        self._next_remark = time.monotonic() + REMARK_EVERY_S
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._progress = (
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                console=console,
                transient=True,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Line:
        if self._progress is not None:
            self._progress.start()
            self._bars[""] = self._progress.add_task(self._what, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def now(self, text: str) -> None:
        """What is being done at the moment."""
        self._what = text
        if self._progress is not None:
            self._progress.update(self._bars[""], description=text)

    def bar(self, name: str, done: int, total: int) -> None:
        """How far a part of the step is."""
        with self._lock:
            if self._progress is None:
                self._shares[name] = f"{name} {done / max(total, 1):.0%}"
                self._remark()
                return
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(f"  {name}", total=total)
            self._progress.update(self._bars[name], completed=done, total=total)

    def say(self, text: str) -> None:
        """What stands in the line when the step is done."""
        self.said = text

    def _remark(self) -> None:
        if time.monotonic() >= self._next_remark:
            self._next_remark = time.monotonic() + REMARK_EVERY_S
            self._console.print(Text(f"  {self._what}: {', '.join(self._shares.values())}"))


def _place(check: Check) -> int:
    return next((at for at, beginning in enumerate(ORDER) if check.name.startswith(beginning)), len(ORDER))
