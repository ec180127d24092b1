"""`headrace sql`: one query, a file of queries on standard input, or a shell."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

from batch.settings import BatchSettings
from batch.sql import Session
from headrace.run.sql_shell import Shell
from headrace.run.sql_text import split_statements
from headrace.run.table_files import check_target, write_table
from headrace.settings import read_settings
from headrace.terminal.output import print_json, say, working
from headrace.terminal.show_table import print_arrow


def run_query(text: str, out: Path | None, json: bool) -> None:
    """Answer one query on standard output, or into a file."""
    if out is not None:
        check_target(out)
    session = Session(read_settings(BatchSettings))
    with working("asking"):
        answer = session.query(text)
    if out is not None:
        write_table(answer, out)
        say(f"{len(answer):,} rows: {out}")
    else:
        _print(answer, json)


def run_script(json: bool) -> None:
    """Answer each statement that comes on standard input."""
    session = Session(read_settings(BatchSettings))
    statements, rest = split_statements(sys.stdin.read())
    for statement in [*statements, *([rest] if rest.strip() else [])]:
        _print(session.query(statement), json)


def run_shell() -> None:
    """Talk until Ctrl-D."""
    settings = read_settings(BatchSettings)
    settings.home.mkdir(parents=True, exist_ok=True)
    Shell(Session(settings), settings.home / "sql_history").run()


def _print(answer: pa.Table, json: bool) -> None:
    if json:
        print_json(answer.to_pylist())
    else:
        print_arrow(answer)
