"""What a log line says to a machine."""

from __future__ import annotations

import json
import logging
import sys

from headrace.terminal.logs import JsonLines


def record(**more: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "stream.patience", logging.WARNING, "x.py", 1, "no progress: %s", ('Redis "x"\nis down',), None
    )
    vars(made).update(more)
    return made


def test_a_line_is_one_json_object() -> None:
    line = JsonLines().format(record(created=0.5))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "logger": "stream.patience",
        "message": 'no progress: Redis "x"\nis down',
    }


def test_an_error_comes_with_its_traceback() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        line = json.loads(JsonLines().format(record(exc_info=sys.exc_info())))
    assert line["error"].endswith("ValueError: why")
