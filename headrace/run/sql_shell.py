"""The SQL shell: several lines a query, history kept, names completed, `\\d` for what there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from batch.sql import Session
from headrace.run.sql_text import split_statements
from headrace.terminal.output import out, print_table, say
from headrace.terminal.show_table import print_arrow
from schemas.errors import HeadraceError

HISTORY_LINES_MAX = 5_000
LEAVE = ("\\q", "quit", "exit")
ROWS_SHOWN_MAX = 200
PROMPT = "headrace> "
GOES_ON = "       -> "
HELP = r"""A query ends with a semicolon and may take several lines; Ctrl-C gives it up, Ctrl-D leaves.
  \d           the tables
  \d TABLE     a table's columns
  \h           this
  \q           leave"""
WORDS = """
SELECT FROM WHERE GROUP BY ORDER LIMIT HAVING JOIN LEFT USING ON AS AND OR NOT IN BETWEEN IS NULL DESC ASC DISTINCT WITH
CASE WHEN THEN ELSE END DESCRIBE SUMMARIZE count sum avg median min max quantile_cont round date_trunc
"""


class Shell:
    """Reads queries from a person and answers them, until Ctrl-D. An error ends a query, never the shell."""

    def __init__(self, session: Session, history: Path, read: Callable[[str], str] = input) -> None:
        self._session = session
        self._history = history
        self._read = read

    def run(self) -> None:
        """Until Ctrl-D or \\q."""
        self._open_history()
        say(f"{len(self._session.tables())} tables; \\d lists them, \\h helps, Ctrl-D leaves")
        begun = ""
        while True:
            try:
                line = self._read(GOES_ON if begun.strip() else PROMPT)
            except EOFError:
                out().print()
                break
            except KeyboardInterrupt:
                out().print()
                begun = ""
                continue
            word = line.strip().rstrip(";").lower()
            if not begun.strip() and word in LEAVE:
                break
            if not begun.strip() and (word.startswith("\\") or word == "help"):
                self._guarded(self._command, line.strip())
                continue
            statements, begun = split_statements(f"{begun}{line}\n")
            for statement in statements:
                self._guarded(self._answer, statement)
        self._keep_history()

    def _guarded(self, work: Callable[[str], None], text: str) -> None:
        try:
            work(text)
        except HeadraceError as error:
            say(f"error: {error}")
        except KeyboardInterrupt:
            say("given up")

    def _answer(self, statement: str) -> None:
        started = time.monotonic()
        answer = self._session.query(statement)
        print_arrow(answer, ROWS_SHOWN_MAX)
        rows = "1 row" if len(answer) == 1 else f"{len(answer):,} rows"
        say(f"{rows} in {time.monotonic() - started:.2f} s")

    def _command(self, text: str) -> None:
        word, _, argument = text.partition(" ")
        if word == "\\d" and argument.strip():
            self._describe(argument.strip().rstrip(";"))
        elif word == "\\d":
            print_table(["table"], [[name] for name in self._session.tables()])
        else:
            say(HELP)

    def _describe(self, name: str) -> None:
        answer = self._session.query(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {name})")
        print_table(["column", "type"], [list(row.values()) for row in answer.to_pylist()])

    def _open_history(self) -> None:
        # Python may be built without readline: then there is no history and no completion, and all else works.
        with suppress(ImportError):
            import readline

            readline.set_history_length(HISTORY_LINES_MAX)
            readline.set_completer(self._complete)
            readline.set_completer_delims(" \t\n,();=<>")
            readline.parse_and_bind("tab: complete")
            with suppress(OSError):
                readline.read_history_file(self._history)

    def _keep_history(self) -> None:
        with suppress(ImportError, OSError):
            import readline

            readline.write_history_file(self._history)

    def _complete(self, begun: str, number: int) -> str | None:
        words = [*self._session.tables(), *WORDS.split(), "\\d", "\\h", "\\q"]
        found = [word for word in words if word.lower().startswith(begun.lower())]
        return found[number] if number < len(found) else None
