"""Every run of the demo begins with nothing: what an earlier one left is deleted, and nothing else is.

The topics that a run made are noted by their ids in HOME/demo/topics.json before anything is produced. A topic of the
same name with other messages, or a table without that note, is somebody's data: the demo then refuses to start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import redis
from confluent_kafka import KafkaException

from batch.catalog import find, open_catalog
from batch.settings import BatchSettings
from batch.tables import REJECTS, events_table, served_table
from features.plan import Definitions
from schemas.errors import ConfigError, NotReady
from schemas.settings import ConnectionSettings
from stream.topics import admin_client, describe_topics, ranges, unreachable

DELETE_TIMEOUT_S = 30.0
REDIS_KEYS_AT_ONCE = 1_000
HINT = "give the demo a home of its own: HEADRACE_HOME=.headrace-demo headrace demo"


def start_over(
    settings: ConnectionSettings,
    batch: BatchSettings,
    known: Iterable[Definitions],
    service: str,
    topics: Sequence[str],
) -> None:
    """Deletes topics, tables and online rows of an earlier run; `known`: declared and applied definitions.

    Raises ConfigError, before anything is deleted, where they hold what no run of the demo has put there.
    """
    everything = [*topics, settings.rejects_topic, f"served.{service}"]
    tables = [*(events_table(topic) for topic in topics), served_table(service), REJECTS]
    catalog = open_catalog(batch)
    noted = _noted(settings.home)
    _refuse_foreign_topics(settings, everything, noted)
    if not noted:
        held = [".".join(name) for name in tables if (table := find(catalog, name)) and table.current_snapshot()]
        if held:
            raise ConfigError("tables hold rows that the demo did not write", got=", ".join(held), hint=HINT)
    _delete_topics(settings, everything)
    for name in tables:
        if find(catalog, name) is not None:
            catalog.purge_table(name)
    for definitions in known:
        _delete_rows(settings, definitions, set(topics))


def note_topics(settings: ConnectionSettings, names: Sequence[str]) -> None:
    """Notes the ids of the topics that this run is about to fill."""
    found = describe_topics(admin_client(settings), names)
    path = _note(settings.home)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: topic.id.hex() for name, topic in found.items()}))


def _note(home: Path) -> Path:
    return home / "demo" / "topics.json"


def _noted(home: Path) -> dict[str, str]:
    try:
        noted: dict[str, str] = json.loads(_note(home).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{_note(home)} is damaged", got=str(error), hint=HINT) from None
    return noted


def _refuse_foreign_topics(settings: ConnectionSettings, names: list[str], noted: dict[str, str]) -> None:
    admin = admin_client(settings)
    foreign = {
        name: topic for name, topic in describe_topics(admin, names).items() if topic.id.hex() != noted.get(name)
    }
    places = [(name, partition) for name, topic in foreign.items() for partition in topic.partitions]
    filled = sorted({topic for (topic, _), range_ in ranges(admin, places).items() if range_.end > 0})
    if filled:
        raise ConfigError("topics hold messages that the demo did not produce", got=", ".join(filled), hint=HINT)


def _delete_topics(settings: ConnectionSettings, names: list[str]) -> None:
    admin = admin_client(settings)
    existing = list(describe_topics(admin, names))
    if not existing:
        return
    for future in admin.delete_topics(existing, operation_timeout=DELETE_TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as error:
            raise unreachable(error) from error
    deadline = time.monotonic() + DELETE_TIMEOUT_S
    while left := describe_topics(admin, existing):
        if time.monotonic() > deadline:
            raise NotReady("Kafka has not deleted the earlier run's topics", got=", ".join(left), hint="run it again")
        time.sleep(0.1)


def _delete_rows(settings: ConnectionSettings, definitions: Definitions, topics: set[str]) -> None:
    """The online state of every view that reads one of the topics."""
    with redis.Redis.from_url(settings.redis_address()) as client:
        for view in definitions.views.values():
            if topics.isdisjoint({source.event.topic for source in view.sources}):
                continue
            batch: list[bytes] = []
            for key in client.scan_iter(f"h{{{view.storage_id}.*", count=REDIS_KEYS_AT_ONCE):
                batch.append(key)
                if len(batch) == REDIS_KEYS_AT_ONCE:
                    client.unlink(*batch)
                    batch.clear()
            if batch:
                client.unlink(*batch)
