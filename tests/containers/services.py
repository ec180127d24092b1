"""Kafka and Redis as containers, where a Docker engine answers and has their images or can get them.

HEADRACE_TEST_SERVICES=local or =containers decides it otherwise. The images are settings, as compose.yaml's:
HEADRACE_KAFKA_IMAGE and HEADRACE_REDIS_IMAGE. Testcontainers stops what a run has started, also where the run dies; its
reaper needs an image of its own, and where that is not to be had the fixtures alone stop them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import docker
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from headrace.local.ports import LOOPBACK, free_ports

KAFKA_IMAGE = os.environ.get("HEADRACE_KAFKA_IMAGE", "apache/kafka:4.1.0")
REDIS_IMAGE = os.environ.get("HEADRACE_REDIS_IMAGE", "redis:7.2-bookworm")
START_TIMEOUT_S = 120.0
PULL_TIMEOUT_S = 120
"""An image comes once; an engine that does not answer for so long is none."""


class Chosen(NamedTuple):
    """Whether a run's services are containers, and why."""

    containers: bool
    why: str


@cache
def chosen() -> Chosen:
    """Decided once a run. Raises DockerException where containers are asked for and no engine answers."""
    asked = os.environ.get("HEADRACE_TEST_SERVICES", "")
    if asked == "local":
        return Chosen(False, "HEADRACE_TEST_SERVICES=local")
    try:
        engine = docker.from_env(timeout=PULL_TIMEOUT_S)
        engine.ping()
        missing = [image for image in (KAFKA_IMAGE, REDIS_IMAGE) if not _is_there(engine, image)]
        if not testcontainers_config.ryuk_disabled and not _is_there(engine, testcontainers_config.ryuk_image):
            testcontainers_config.ryuk_disabled = True
    except (docker.errors.DockerException, OSError) as error:
        if asked == "containers":
            raise
        return Chosen(False, f"no Docker engine answers ({type(error).__name__})")
    if missing and asked != "containers":
        return Chosen(False, f"the Docker engine can't get {' and '.join(missing)}")
    return Chosen(True, f"{KAFKA_IMAGE} and {REDIS_IMAGE}")


def wanted() -> bool:
    """True where the run's services are to be containers; local processes otherwise."""
    return chosen().containers


def _is_there(engine: docker.DockerClient, image: str) -> bool:
    """True where the engine has the image, or could get it."""
    try:
        engine.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            engine.images.pull(image)
        except (docker.errors.DockerException, OSError):
            return False
    return True


@contextmanager
def kafka() -> Iterator[str]:
    """A broker; its bootstrap servers."""
    # The broker tells clients where it is: so the port is chosen before it starts.
    [port] = free_ports(1)
    environment = {
        "CLUSTER_ID": "aGVhZHJhY2UtdGVzdHMtMQ",
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{LOOPBACK}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_HEAP_OPTS": "-Xmx512m",
    }
    container = on_loopback(KAFKA_IMAGE, {9092: port})
    for name, value in environment.items():
        container = container.with_env(name, value)
    with container:
        address = f"{LOOPBACK}:{port}"
        _wait_until(lambda: _broker_answers(address), container)
        yield address


@contextmanager
def single_redis() -> Iterator[str]:
    """A Redis; its URL."""
    [port] = free_ports(1)
    command = "redis-server --save '' --maxmemory-policy noeviction --protected-mode no --bind 0.0.0.0"
    container = on_loopback(REDIS_IMAGE, {6379: port}).with_command(command)
    with container:
        _wait_until(lambda: _redis_answers(port), container)
        yield f"redis://{LOOPBACK}:{port}/0"


def on_loopback(image: str, ports: Mapping[int, int]) -> DockerContainer:
    """A container whose ports (inside: outside) are published on this machine's loopback interface alone."""
    container = DockerContainer(image)
    # `with_bind_ports` would bind to every interface of the machine.
    container.ports.update({f"{inside}/tcp": (LOOPBACK, outside) for inside, outside in ports.items()})
    return container


def _broker_answers(address: str) -> bool:
    try:
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return False
    return True


def _redis_answers(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port, socket_timeout=2).ping())
    except (redis.RedisError, OSError):
        return False


def _wait_until(condition: Callable[[], bool], container: DockerContainer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            output, errors = container.get_logs()
            raise TimeoutError(f"{container.image} does not answer: {(output + errors).decode()[-2_000:]}")
        time.sleep(0.3)
