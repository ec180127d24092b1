"""From a broken schema to a mended one, by the commands: Avro events, rejects, replay, and every event counted once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.registry import Registry
from tests.unit.schemas.writers import MICROS, avro

DEFINITIONS = """
from datetime import datetime
from typing import Annotated
from pydantic import Field
from features import Count, Entity, FeatureService, FeatureView, Sum
from schemas import Event

class Payment(Event, topic="{topic}", time="at", key=["card"], format="avro"):
    at: datetime
    card: str
    amount: Annotated[int, Field(le={at_most})]

card = Entity("card", join_key="card")
spent = FeatureView("spent", entity=card, source=Payment, features={{"payments": Count(), "total": Sum("amount")}})
service = FeatureService("cards", [spent])
"""
AMOUNTS = [5, 200, 7, 300, 5_000]
FIELDS = {"at": MICROS, "card": "string", "amount": "int"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Commands:
    """`headrace …` in a project of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._environment = {**os.environ, **settings}

    def declare(self, **values: object) -> None:
        (self._folder / "definitions").mkdir(exist_ok=True)
        (self._folder / "definitions" / "payments.py").write_text(DEFINITIONS.format(**values))

    def run(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *arguments, "--json"],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=self._environment,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def test_rejects_of_a_schema_that_was_too_narrow(
    kafka: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic, registry_url = unique("payments"), f"file://{tmp_path}/registry"
    commands = Commands(
        tmp_path,
        HEADRACE_HOME=str(tmp_path / "home"),
        HEADRACE_PROJECT=unique("p"),
        HEADRACE_DEFINITIONS=str(tmp_path / "definitions"),
        HEADRACE_KAFKA_BOOTSTRAP=kafka,
        HEADRACE_REDIS_URL=redis_url,
        HEADRACE_SCHEMA_REGISTRY_URL=registry_url,
        # Three of five are bad: the worker would stop to ask whether the producer is broken.
        HEADRACE_REJECTS_SHARE_MAX="1.0",
    )
    commands.declare(topic=topic, at_most=100)
    commands.run("apply")
    producer, registry = Producer({"bootstrap.servers": kafka}), Registry(registry_url)
    for amount in AMOUNTS:
        record = {"at": datetime.now(UTC), "card": "c1", "amount": amount}
        producer.produce(topic, avro(registry, FIELDS, record, f"{topic}-value"), b"c1")
    producer.flush(30)

    def counted() -> tuple[int, int]:
        """What the stream has folded, after it has caught up, and what the lander has landed."""
        commands.run("stream", "--until-caught-up")
        commands.run("land", "--until-caught-up")
        (row,) = commands.run("sql", f"SELECT count(*) AS n, sum(amount)::BIGINT AS total FROM events.{topic}")
        features = commands.run("get", "cards", "card=c1")["values"]
        assert features == {"spent__payments": row["n"], "spent__total": row["total"]}
        return row["n"], row["total"]

    assert counted() == (2, 12)
    assert commands.run("rejects", "replay")["replayed"] == {}

    commands.declare(topic=topic, at_most=1_000)
    commands.run("apply")
    first = commands.run("rejects", "replay")
    assert (first["replayed"], first["still_rejected"]) == ({topic: 2}, {"bad_value": 1})
    again = commands.run("rejects", "replay")
    assert (again["replayed"], again["before"]) == ({}, 2)
    assert counted() == (4, 512)
    commands.run("rejects", "replay", "--topic", topic)
    assert counted() == (4, 512)
