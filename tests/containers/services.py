"""Kafka, Redis and a Redis Cluster as containers, for the tests that take theirs from there: HEADRACE_TEST_SERVICES.

The images are settings, as compose.yaml's: HEADRACE_KAFKA_IMAGE and HEADRACE_REDIS_IMAGE. Testcontainers stops what a
run has started, also where the run dies (its reaper needs an image of its own; TESTCONTAINERS_RYUK_DISABLED=true does
without, and then the fixtures alone stop them).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer

from headrace.local.ports import LOOPBACK, free_ports

KAFKA_IMAGE = os.environ.get("HEADRACE_KAFKA_IMAGE", "apache/kafka:4.1.0")
REDIS_IMAGE = os.environ.get("HEADRACE_REDIS_IMAGE", "redis:7.2-bookworm")
START_TIMEOUT_S = 120.0


def wanted() -> bool:
    """True where the run's services are to be containers; local processes otherwise."""
    return os.environ.get("HEADRACE_TEST_SERVICES", "local") == "containers"


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
    container = _on_loopback(KAFKA_IMAGE, 9092, port)
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
    container = _on_loopback(REDIS_IMAGE, 6379, port).with_command(command)
    with container:
        _wait_until(lambda: _redis_answers(port), container)
        yield f"redis://{LOOPBACK}:{port}/0"


def _on_loopback(image: str, inside: int, outside: int) -> DockerContainer:
    container = DockerContainer(image)
    # `with_bind_ports` would bind to every interface of the machine.
    container.ports[f"{inside}/tcp"] = (LOOPBACK, outside)
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
