"""The SQL shell: statements over several lines, errors that end no shell, commands; and where a statement ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batch.catalog import open_catalog
from batch.settings import BatchSettings
from batch.sql import Session
from batch.tables import ensure_table, events_table
from headrace.run.sql_shell import Shell
from headrace.run.sql_text import split_statements


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("select 1;", ["select 1"], ""),
        ("select 1; select 2;", ["select 1", "select 2"], ""),
        ("select 1", [], "select 1"),
        ("select ';' as a, 'it''s;' as b;", ["select ';' as a, 'it''s;' as b"], ""),
        ('select 1 as "a;b";', ['select 1 as "a;b"'], ""),
        ("select 1 -- not here;\n;", ["select 1 -- not here;"], ""),
        ("select /* nor; here */ 1;", ["select /* nor; here */ 1"], ""),
        ("select 'begun; ", [], "select 'begun; "),
        ("select 1; /* begun;", ["select 1"], " /* begun;"),
        (";;", [], ""),
    ],
)
def test_a_statement_ends_at_its_own_semicolon(text: str, statements: list[str], rest: str) -> None:
    assert split_statements(text) == (statements, rest)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., None]:
    settings = BatchSettings(home=tmp_path)
    schema = pa.schema([("origin", pa.string()), ("kafka_timestamp", pa.timestamp("us"))])
    ensure_table(open_catalog(settings), events_table("flights"), schema, "kafka_timestamp")

    def talk(*lines: str | type[BaseException]) -> None:
        script: Iterator[str | type[BaseException]] = iter(lines)

        def read(prompt: str) -> str:
            line = next(script, EOFError)
            if isinstance(line, str):
                return line
            raise line

        Shell(Session(settings), tmp_path / "history", read).run()

    return talk


def test_a_query_takes_several_lines(shell: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    shell("select 40 +", "2 as answer", ";")
    assert "answer\n    42" in capsys.readouterr().out


def test_an_error_ends_the_query_and_not_the_shell(
    shell: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    shell("select nope;", "drop table events.flights;", "select 'still here' as it;")
    printed = capsys.readouterr()
    assert printed.err.count("error: ") == 2
    assert "still here" in printed.out


def test_ctrl_c_gives_up_what_was_begun(shell: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    shell("select 'begun", KeyboardInterrupt, "select 7 as n;")
    assert "n\n7" in capsys.readouterr().out


@pytest.mark.parametrize("leave", ["\\q", "quit;", "exit", EOFError])
def test_ways_to_leave(leave: str, shell: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    shell(leave, "select 'unseen' as it;")
    assert "unseen" not in capsys.readouterr().out


def test_commands_list_tables_and_columns(shell: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    shell("\\d", "\\d events.flights", "\\d events.nope", "\\h")
    printed = capsys.readouterr()
    assert "events.flights" in printed.out
    assert "origin           VARCHAR" in printed.out
    assert "error: " in printed.err
    assert "Ctrl-D leaves" in printed.err
