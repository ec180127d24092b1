"""The command line as a user meets it: quick help, errors in one line, JSON on request, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import app

HEADRACE = [sys.executable, "-m", "headrace"]
COMMANDS = ["up", "down", "status", "plan", "apply", "import", "rebuild", "maintain", "rejects", "stream", "land"]
COMMANDS += ["materialize", "train", "serve", "get", "sql", "verify", "demo"]


def run(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEADRACE_HOME": str(cwd / "home"), **settings}
    return subprocess.run(
        [*HEADRACE, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False
    )


def test_help_lists_every_command_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from headrace.cli import app; from contextlib import suppress\n"
        "with suppress(SystemExit): app(['--help'])\n"
        "heavy = {'feast', 'duckdb', 'pyarrow', 'pandas', 'numpy', 'pyiceberg', 'confluent_kafka', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "heavy: []" in done.stdout
    for command in COMMANDS:
        assert f"│ {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout
    assert "--json" in done.stdout or command in ("serve", "rejects")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["upp"], 2, ["No such command 'upp'", "'up'", "headrace --help"]),
        (["up", "--nope"], 2, ["No such option", "headrace up --help"]),
        (["plan"], 1, ["folder of definitions isn't there", "HEADRACE_DEFINITIONS"]),
        (["get", "nothing", "a=1"], 1, ["headrace apply"]),
    ],
)
def test_a_mistake_is_one_line_and_a_code(arguments: list[str], code: int, parts: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_setting_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    done = run("status", cwd=tmp_path, HEADRACE_PROJECT="My Project")
    assert done.returncode == 1
    assert "error: HEADRACE_PROJECT" in done.stderr
    (tmp_path / "headrace.toml").write_text("project = [")
    assert "headrace.toml isn't TOML" in run("status", cwd=tmp_path).stderr


def test_settings_come_from_the_file_and_the_environment_goes_before(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('project = "from_file"\nkafka_bootstrap = "127.0.0.1:1"\n')
    assert json.loads(run("status", "--json", cwd=tmp_path).stdout)["project"] == "from_file"
    state = json.loads(run("status", "--json", cwd=tmp_path, HEADRACE_PROJECT="from_env").stdout)
    assert state["project"] == "from_env"
    assert state["kafka"] == "127.0.0.1:1"
    assert state["answers"] == {"kafka": False, "redis": False}


def test_a_misspelt_setting_is_remarked_on(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('redis_ulr = "redis://x"\n')
    done = run("status", cwd=tmp_path, HEADRACE_KAFKA_BOOTSRAP="x:1", HEADRACE_SERVE_PORT="1")
    assert (
        "HEADRACE_KAFKA_BOOTSRAP is no setting and is not used; did you mean HEADRACE_KAFKA_BOOTSTRAP?" in done.stderr
    )
    assert "redis_ulr is no setting and is not used; did you mean redis_url?" in done.stderr
    assert "SERVE_PORT" not in done.stderr


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    for arguments in (["status"], ["status", "--json"], ["up"]):
        done = run(
            *arguments,
            cwd=tmp_path,
            HEADRACE_REDIS_URL="redis://me:hunter2@127.0.0.1:1/0",
            HEADRACE_KAFKA_BOOTSTRAP="x:1",
        )
        assert "hunter2" not in done.stdout + done.stderr


def test_plan_shows_what_is_declared_and_changes_nothing(tmp_path: Path) -> None:
    views = Path(__file__).parents[3] / "features" / "views"
    done = run("plan", cwd=tmp_path, HEADRACE_DEFINITIONS=str(views))
    assert done.returncode == 0
    assert "+ view airport_delays" in done.stdout
    assert "delay_mean_6h = Mean('dep_delay_min', over='6h'): float64" in done.stdout
    changes = json.loads(run("plan", "--json", cwd=tmp_path, HEADRACE_DEFINITIONS=str(views)).stdout)["changes"]
    assert {"action": "add", "kind": "service", "name": "late_arrival"}.items() <= changes[-1].items()
    assert not (tmp_path / "home").exists()


def test_a_broken_definition_ends_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "defs").mkdir()
    (tmp_path / "defs" / "mine.py").write_text("from features import Meen\n")
    done = run("plan", cwd=tmp_path, HEADRACE_DEFINITIONS="defs")
    assert done.returncode == 1
    assert done.stderr.startswith("error: defs/mine.py:1: ")
    assert "did you mean 'Mean'?" in done.stderr


def test_services_start_and_stop(tmp_path: Path) -> None:
    started = run("up", "--json", cwd=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        addresses = json.loads(started.stdout)
        state = json.loads(run("status", "--json", cwd=tmp_path).stdout)
        assert addresses == {"kafka": state["kafka"], "redis": state["redis"]}
        assert state["answers"] == {"kafka": True, "redis": True}
        assert "answers" in run("status", cwd=tmp_path).stdout
    finally:
        stopped = run("down", "--json", cwd=tmp_path)
    assert json.loads(stopped.stdout) == {"stopped": ["kafka", "redis"]}
    assert "not started" in run("status", cwd=tmp_path).stdout


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_cleanly(sign: signal.Signals, code: int, tmp_path: Path) -> None:
    environment = {**os.environ, "HEADRACE_HOME": str(tmp_path / "home")}
    process = subprocess.Popen([*HEADRACE, "up"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(1)
        process.send_signal(sign)
        _, complaint = process.communicate(timeout=30)
    finally:
        run("down", cwd=tmp_path)
    assert process.returncode == code
    assert "Traceback" not in complaint
