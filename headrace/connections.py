"""Kafka and Redis as the settings have them: the local ones of HEADRACE_HOME, or those that a setting names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.local.services import NAMES, Name, up
from schemas.errors import NotReady
from schemas.settings import ConnectionSettings
from schemas.slots import is_cluster, node_urls

REACH_TIMEOUT_S = 5


@dataclass(frozen=True)
class Connection:
    """A service: its address without any password, and whose it is."""

    address: str
    where: str


def connect(settings: ConnectionSettings, report: Callable[[str], None]) -> dict[Name, Connection]:
    """Start what is local and isn't running, and reach what a setting names. Raises ConfigError or NotReady."""
    named: dict[Name, str | None] = {
        "kafka": settings.kafka_bootstrap,
        "redis": settings.redis_url.get_secret_value() if settings.redis_url else None,
    }
    local = [name for name in NAMES if named[name] is None]
    addresses = up(settings.home, local, report) if local else {}
    if named["kafka"]:
        reach_kafka(settings)
    if named["redis"]:
        reach_redis(settings)
    return {
        name: Connection(without_password(named[name] or addresses[name]), "HEADRACE_" + SETTINGS[name])
        if named[name]
        else Connection(addresses[name], f"local, in {settings.home}")
        for name in NAMES
    }


SETTINGS: dict[Name, str] = {"kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL"}


def reach_kafka(settings: ConnectionSettings) -> None:
    """Raises NotReady where Kafka does not answer."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    config = settings.kafka_config()
    try:
        AdminClient({**config, "log_level": 0}).list_topics(timeout=REACH_TIMEOUT_S)
    except KafkaException as error:
        raise NotReady(
            "Kafka does not answer",
            where=config["bootstrap.servers"],
            got=error.args[0].str(),
            hint="check HEADRACE_KAFKA_BOOTSTRAP and …_KAFKA_OPTIONS; without them `headrace up` starts a local one",
        ) from None


def reach_redis(settings: ConnectionSettings) -> None:
    """Raises NotReady where Redis does not answer."""
    import redis

    url = settings.redis_address()
    try:
        with redis.Redis.from_url(
            node_urls(url)[0] if is_cluster(url) else url,
            socket_timeout=REACH_TIMEOUT_S,
            socket_connect_timeout=REACH_TIMEOUT_S,
        ) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise NotReady(
            "Redis does not answer",
            where=without_password(url),
            got=str(error),
            hint="check HEADRACE_REDIS_URL; without it `headrace up` starts a local one",
        ) from None


def without_password(url: str) -> str:
    """The address as it may be shown."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
