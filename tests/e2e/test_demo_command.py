"""`headrace demo` as a user has it: interrupted, run again, and refused where it would delete data of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.local.services import down

ROOT = Path(__file__).parents[2]
SHARE = "0.05"
PRODUCING_TIMEOUT_S = 240
NAMES = (
    "events_produced",
    "rejected",
    "events_folded",
    "events_landed",
    "vectors_compared",
    "vectors_equal",
    "auc_with_streaming",
    "auc_without",
    "seconds",
)
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("demo")
    yield home
    down(home)


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", "demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"HEADRACE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(home: Path) -> list[int]:
    """The `headrace` processes that were started with this home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"HEADRACE_HOME={home}".encode() in environment and b"headrace" in command:
            found.append(int(entry.name))
    return found


def test_interrupted_in_the_middle_it_ends_its_processes_and_can_be_run_again(home: Path) -> None:
    first = start(home, "--share", SHARE)
    deadline = time.monotonic() + PRODUCING_TIMEOUT_S
    # The server answers: the stream is about to begin.
    while "serving" not in read(home / "demo" / "server.log"):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT, said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said
    assert processes_of(home) == []

    second = start(home, "--share", SHARE, "--json")
    answer, said = second.communicate(timeout=600)
    assert second.returncode == 0, said
    figures = json.loads(answer)
    assert figures == json.loads((home / "demo.json").read_text())
    assert set(NAMES) <= set(figures)
    assert figures["events_produced"] == figures["events_folded"] + figures["rejected"]
    assert figures["events_folded"] == figures["events_landed"]
    assert figures["vectors_compared"] == figures["vectors_equal"] > 400
    assert figures["auc_with_streaming"] > figures["auc_without"] > 0.5
    assert figures["ok"] is True
    assert processes_of(home) == []


def test_data_that_no_demo_wrote_is_never_deleted(home: Path) -> None:
    (home / "demo" / "topics.json").rename(home / "demo" / "topics.json.away")
    refused = start(home, "--share", SHARE)
    answer, said = refused.communicate(timeout=300)
    assert refused.returncode == 1
    assert answer == ""
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: topics hold messages that the demo did not produce; got arrivals, flights")
    assert last.endswith("give the demo a home of its own: HEADRACE_HOME=.headrace-demo headrace demo")


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""
