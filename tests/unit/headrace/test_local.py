"""The local Kafka and Redis: real processes, killed, doubled and moved, with their data kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.local.process import Service
from headrace.local.services import down, running, up
from schemas.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a home with spaces"
    yield folder
    down(folder)


def test_up_twice_is_one_of_each_and_down_stops_both(home: Path) -> None:
    first = up(home)
    pids = running(home)
    assert up(home) == first
    assert running(home) == pids
    assert json.loads((home / "local.json").read_text()) == first
    assert redis.Redis.from_url(first["redis"]).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    assert sorted(down(home)) == ["kafka", "redis"]

    assert running(home) == {}
    assert not (home / "local.json").exists()
    assert down(home) == []


def test_a_cluster_id_may_begin_with_a_dash(home: Path) -> None:
    (home / "kafka").mkdir(parents=True)
    (home / "kafka" / "cluster-id").write_text("-AAAAAAAAAAAAAAAAAAAAA")
    assert set(up(home, ["kafka"])) == {"kafka"}


def test_killed_services_come_back_with_their_data_at_the_same_address(home: Path) -> None:
    first = up(home)
    client = redis.Redis.from_url(first["redis"])
    client.set("kept", "yes")
    produce(first["kafka"], "kept", b"an event")
    time.sleep(1.2)  # AOF everysec: what is older than a second survives
    for pid in running(home).values():
        os.kill(pid, signal.SIGKILL)

    assert up(home) == first

    assert redis.Redis.from_url(first["redis"]).get("kept") == b"yes"
    assert read_one(first["kafka"], "kept") == b"an event"


def test_services_outlive_the_caller_that_is_killed(home: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from headrace.local.services import up;"
        " print(up(Path(sys.argv[1]), ['redis'])['redis'], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    caller = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=False)
    assert caller.returncode == -signal.SIGKILL
    assert redis.Redis.from_url(caller.stdout.strip()).ping()


def test_two_ups_at_once_start_one(home: Path) -> None:
    command = [sys.executable, "-c", "import sys; from pathlib import Path; from headrace.local.services import up;"]
    command[-1] += " print(up(Path(sys.argv[1]), ['redis'])['redis'])"
    both = [subprocess.Popen([*command, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate()[0] for process in both}
    assert len(answers) == 1
    assert all(process.returncode == 0 for process in both)


def test_two_homes_do_not_disturb_each_other(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    try:
        assert up(home, ["redis"])["redis"] != up(other, ["redis"])["redis"]
        down(home)
        assert set(running(other)) == {"redis"}
    finally:
        down(other)


def test_a_pid_file_that_names_a_stranger_is_not_believed(home: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (home / "redis").mkdir(parents=True)
        (home / "redis" / "pid").write_text(str(stranger.pid))
        assert running(home) == {}
        down(home)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_that_somebody_took_is_given_up(home: Path) -> None:
    first = up(home, ["redis"])["redis"]
    down(home)
    port = int(first.rsplit(":", 1)[1].split("/")[0])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert up(home, ["redis"])["redis"] != first


def test_a_service_that_ends_at_once_says_what_it_logged(home: Path) -> None:
    (home / "redis" / "data").mkdir(parents=True)
    (home / "redis" / "data" / "appendonly.aof").write_text("not a log of commands")
    (home / "redis" / "data" / "appendonlydir").mkdir()
    (home / "redis" / "data" / "appendonlydir" / "appendonly.aof.manifest").write_text("nor a manifest")
    with pytest.raises(ConfigError, match="ended while it started"):
        up(home, ["redis"])


def test_a_program_that_is_not_there_is_no_running_service(tmp_path: Path) -> None:
    service = Service("nothing", tmp_path)
    service.start([str(tmp_path / "no such program")])
    deadline = time.monotonic() + 5
    while service.pid() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert service.pid() is None
    assert "could not be started" in service.log.read_text()


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def read_one(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        message = consumer.poll(30)
        return message.value() if message else None
    finally:
        consumer.close()
