"""The commands with the other runners and engines: apply, produce, stream, get, train, each a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.contract.cluster.masters import Cluster
from tests.contract.stream.runners import MARKS, RUNNERS
from tests.e2e.test_commands import TRIPS, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def project(tmp_path: Path, kafka: str, redis_url: str) -> Project:
    project = Project(tmp_path, kafka, redis_url, f"shop_{uuid.uuid4().hex[:10]}")
    project.run("apply")
    project.produce()
    return project


@contextmanager
def running(project: Project, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until SIGTERM, and then ends without an error."""
    with (project.folder / "running.log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *arguments],
            cwd=project.folder,
            env=project.environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            log.seek(0)
            assert code == 0, log.read().decode()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_stream_by_every_runner(runner: str, project: Project) -> None:
    done = project.json("stream", "--until-caught-up", "--runner", runner)
    assert done.items() >= {"events": TRIPS, "rejected": 1, "caught_up": True}.items()
    assert {place["lag"] for place in project.json("status")["folded"]} == {0}
    assert project.json("get", project.model, "rider=1")["values"] == {"rides__n": 31, "rides__fares": 150.0}
    with running(project, "stream", "--runner", runner):
        project.produce()
        deadline = time.monotonic() + 120
        while project.json("get", project.model, "rider=1")["values"]["rides__fares"] != 300.0:
            assert time.monotonic() < deadline, "not in time"


@pytest.mark.parametrize("engine", [pytest.param("spark", marks=MARKS["spark"])])
def test_training_by_the_other_engine(engine: str, project: Project) -> None:
    project.run("land", "--until-caught-up")
    (project.folder / "rows.csv").write_text("rider,event_timestamp\n1,2020-09-13T14:26:40\n7,2020-09-13T14:26:40\n")
    arguments = ("train", project.model, "--rows", "rows.csv", "--out")
    project.run(*arguments, "local.parquet")
    project.run(*arguments, "other.parquet", "--engine", engine)
    local, other = (pq.read_table(project.folder / name) for name in ("local.parquet", "other.parquet"))
    assert other.equals(local)
    assert local["rides__fares"].to_pylist() == [150.0, None]
    refused = project.run(*arguments, "late.parquet", "--engine", engine, "--known-at", "arrival", code=1)
    assert "--engine local" in refused.stderr


def test_the_commands_on_a_redis_cluster(tmp_path: Path, kafka: str, cluster: Cluster) -> None:
    project = Project(tmp_path, kafka, cluster.url, f"shop_{uuid.uuid4().hex[:10]}")
    project.run("apply")
    project.produce()
    assert project.json("stream", "--until-caught-up")["events"] == TRIPS
    assert {place["lag"] for place in project.json("status")["folded"]} == {0}
    assert project.json("get", project.model, "rider=1", "--explain")["values"] == {
        "rides__n": 31,
        "rides__fares": 150.0,
    }
    project.run("rebuild", "rides")
    assert project.json("get", project.model, "rider=1")["values"]["rides__fares"] == 150.0
    project.declare('where="fare > 0"', 'where="fare > 9"')
    project.run("apply", "--replace", "rides")
    assert project.json("get", project.model, "rider=1")["values"]["rides__fares"] is None
