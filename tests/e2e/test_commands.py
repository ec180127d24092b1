"""A new user's walk through the commands, each a process of its own, on a small project in an own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

DEFINITIONS = """\
from datetime import datetime
from features import Count, Entity, FeatureService, FeatureView, Sum
from schemas import Event

class Trip(Event, topic="TOPIC", time="at", key=["rider"]):
    at: datetime
    rider: int
    fare: float

rider = Entity("rider", join_key="rider")
rides = FeatureView(
    "rides", entity=rider, source=Trip, where="fare > 0", features={"n": Count(over="1h"), "fares": Sum("fare")}
)
model = FeatureService("MODEL", [rides], clock="event", log=1.0)
"""
TRIPS = 120


class Project:
    """A folder with definitions, and the commands run in it."""

    def __init__(self, folder: Path, kafka: str, redis_url: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self.topic = f"{name}.trips"
        self.model = f"{name}_model"
        self.kafka = kafka
        self.environment = {
            **os.environ,
            "HEADRACE_HOME": str(folder / ".headrace"),
            "HEADRACE_PROJECT": name,
            "HEADRACE_DEFINITIONS": "defs",
            "HEADRACE_KAFKA_BOOTSTRAP": kafka,
            "HEADRACE_REDIS_URL": redis_url,
        }
        (folder / "defs").mkdir()
        self.declare()

    def declare(self, old: str = "", new: str = "") -> None:
        text = DEFINITIONS.replace("TOPIC", self.topic).replace("MODEL", self.model).replace(old, new)
        (self.folder / "defs" / "shop.py").write_text(text)

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def produce(self) -> None:
        producer = Producer({"bootstrap.servers": self.kafka})
        for number in range(TRIPS):
            trip = {"at": 1_600_000_000 + 60 * number, "rider": number % 2, "fare": 2.5}
            producer.produce(self.topic, json.dumps(trip), key=str(number % 2))
        producer.produce(self.topic, b"not a trip", key="0")
        assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, kafka: str, redis_url: str) -> Project:
    return Project(tmp_path_factory.mktemp("project"), kafka, redis_url, f"shop_{uuid.uuid4().hex[:10]}")


@pytest.mark.timeout(900)
def test_from_nothing_to_a_training_set(project: Project) -> None:
    assert project.json("up") == {"kafka": project.kafka, "redis": project.json("status")["redis"]}
    assert [change["action"] for change in project.json("plan")["changes"]] == ["add"] * 4
    project.run("apply")
    assert project.json("plan")["changes"] == []
    project.produce()
    assert project.json("stream", "--until-caught-up").items() >= {"events": TRIPS, "rejected": 1}.items()
    landed = project.json("land", "--until-caught-up")
    assert (landed["rows"], landed["rejected"]) == ({project.topic: TRIPS}, 1)

    state = project.json("status")
    assert {place["lag"] for place in [*state["folded"], *state["landed"]]} == {0}

    answer = project.json("get", project.model, "rider=1", "--explain")
    assert answer["values"] == {"rides__n": 31, "rides__fares": 150.0}
    assert [trail["events_behind"]["landed"] for trail in answer["explain"]] == [31, 60]
    assert answer["explain"][0]["events_behind"]["newest"][0]["rider"] == 1

    (project.folder / "rows.csv").write_text("rider,event_timestamp\n1,2020-09-13T14:26:40\n7,2020-09-13T14:26:40\n")
    made = project.json("train", project.model, "--rows", "rows.csv", "--out", "out.parquet")
    assert made["rows"] == 2
    table = pq.read_table(project.folder / "out.parquet")
    assert table["rides__fares"].to_pylist() == [150.0, None]
    assert project.json("train", "--manifest", "out.parquet.manifest.json")["equal"]

    span = ("--from", "2020-09-13T13:00:00", "--to", "2020-09-13T15:00:00", "--every", "1h")
    assert project.json("materialize", "rides", *span)["written"] == 3
    assert project.json("materialize", "rides", *span) == {"there_before": 3, "written": 0, "rows": 0}
    (counted,) = project.json("sql", "SELECT count(*) AS n FROM features.rides")
    assert counted["n"] == 6

    (reject,) = project.json("rejects", "list")
    assert (reject["reason"], reject["value"]) == ("undecodable", "not a trip")
    shown = project.run("rejects", "show", project.topic, str(reject["kafka_partition"]), str(reject["kafka_offset"]))
    assert "not a trip" in shown.stdout
    assert project.json("verify", project.model)["compared"] == 0
    assert project.json("maintain")["orphans_deleted"] == 0


@pytest.mark.timeout(900)
def test_history_a_rebuild_and_a_new_meaning(project: Project) -> None:
    (project.folder / "old.csv").write_text(
        "at,rider,fare\n2020-01-01T00:00:00,1,10\n2020-01-01T00:00:00,1,-1\nx,1,1\n"
    )
    assert project.json("import", "Trip", "old.csv") == {"rows": 2, "rejected": 1, "known_before": []}
    assert project.json("import", "Trip", "old.csv")["known_before"] == ["old.csv"]
    project.run("rebuild", "rides")
    assert project.json("get", project.model, "rider=1")["values"]["rides__fares"] == 160.0

    project.declare('where="fare > 0"', 'where="fare < 0"')
    refused = project.run("apply", code=1)
    assert "--replace rides" in refused.stderr
    assert project.json("get", project.model, "rider=1")["values"]["rides__fares"] == 160.0
    project.run("apply", "--replace", "rides")
    assert project.json("get", project.model, "rider=1")["values"]["rides__fares"] == -1.0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["get", "nope", "rider=1"], ["no such service", "_model"]),
        (["get", "MODEL"], ["a vector is of an entity", "rider=…"]),
        (["get", "MODEL", "ridr=1"], ["no such key", "rider"]),
        (["get", "MODEL", "rider=one"], ["rider is of type int64"]),
        (["get", "MODEL", "rider"], ["key=value"]),
        (["train", "MODEL", "--rows", "nope.csv", "--out", "x.parquet"], ["no such file"]),
        (["train", "MODEL", "--rows", "rows.csv", "--out", "x.xls"], [".parquet"]),
        (["rebuild", "nope"], ["no such view", "rides"]),
        (["apply", "--replace", "nope"], ["--replace names a declared view", "rides"]),
        (["import", "Tripp", "rows.csv"], ["no such event type", "Trip"]),
        (["materialize", "rides", "--from", "now", "--to", "now", "--every", "1h"], ["ISO 8601"]),
        (["sql", "SELECT * FROM events.nope"], ["does not exist", "features.rides"]),
        (["sql", "DROP TABLE rejects"], ["one statement that reads"]),
        (["rejects", "show", "nope", "0", "0"], ["no such reject"]),
        (["rejects", "list", "--reason", "nope"], ["no such reason", "undecodable"]),
    ],
)
def test_mistakes_say_what_to_do(project: Project, arguments: list[str], parts: list[str]) -> None:
    done = project.run(*(project.model if word == "MODEL" else word for word in arguments), code=1)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    for part in parts:
        assert part in done.stderr
