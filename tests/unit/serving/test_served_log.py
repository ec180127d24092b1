"""The log of served vectors: which are sampled, what a message holds, what happens when there are too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import orjson

from features.applied import save_applied
from features.served import decode_served, served_schema
from serving.api import create_app
from serving.served_log import is_sampled
from serving.settings import ServingSettings
from tests.unit.serving.online import Online
from tests.unit.serving.test_api import serving
from tests.unit.serving.test_read import ORDERS
from tests.unit.serving.test_served import batch


class Memory:
    """A log that keeps what it is given, up to a bound."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.messages: list[tuple[str, bytes, bytes]] = []
        self.most = most
        self.flushed = 0

    def append(self, topic: str, key: bytes, value: bytes) -> None:
        if len(self.messages) >= self.most:
            raise BufferError("queue full")
        self.messages.append((topic, key, value))

    def flush(self) -> int:
        self.flushed += 1
        return 0


def ask(
    online: Online, home: Path, log: Memory, requests: list[dict[str, Any]], **bounds: int
) -> tuple[list[Any], str]:
    """The answers to requests, and the metrics after them."""
    settings = ServingSettings(home=home, project=online.definitions.project, redis_url=online.url, **bounds)  # type: ignore[arg-type]
    save_applied(settings.registry_address(), online.definitions)

    async def run() -> tuple[list[Any], str]:
        async with serving(create_app(settings, log)) as client:
            answers = [(await client.post("/get-online-features", json=each)).json() for each in requests]
            return answers, (await client.get("/metrics")).text

    return anyio.run(run)


CUSTOMERS = [f"customer-{n}" for n in range(400)]


def test_an_entity_is_sampled_always_or_never_and_about_the_share_is() -> None:
    chosen = [name for name in CUSTOMERS if is_sampled(name, 0.5)]
    assert chosen == [name for name in CUSTOMERS if is_sampled(name, 0.5)]
    assert 150 < len(chosen) < 250
    assert set(chosen) >= {name for name in CUSTOMERS if is_sampled(name, 0.1)}
    assert all(is_sampled(name, 1.0) for name in CUSTOMERS)
    assert not any(is_sampled(name, 0.0) for name in CUSTOMERS)


def test_a_logged_vector_holds_what_it_takes_to_compute_it_again(online: Online, tmp_path: Path) -> None:
    online.add({"Order": ORDERS})
    names = ["ann", "bob", "nobody", *CUSTOMERS[:20]]
    log = Memory()
    answers, _ = ask(online, tmp_path, log, [{"feature_service": "replay", "entities": {"customer": names}}])
    sampled = [name for name in names if is_sampled(name, 0.5)]
    assert [key.decode() for _, key, _ in log.messages] == sampled
    assert {topic for topic, _, _ in log.messages} == {"served.replay"}
    assert log.flushed == 1
    definitions = online.definitions
    schema = served_schema(definitions, definitions.services["replay"])
    table = decode_served(batch([value for _, _, value in log.messages]), schema).table
    assert table["customer"].to_pylist() == sampled
    results = dict(zip(answers[0]["metadata"]["feature_names"], answers[0]["results"], strict=True))
    for short, full in (("orders", "spending__orders"), ("last_coupon", "coupons__last_coupon")):
        served = dict(zip(names, results[short]["values"], strict=True))
        assert table[full].to_pylist() == [served[name] for name in sampled]
    instant = answers[0]["headrace"]["instants"][0]
    assert {f"{each.isoformat()}Z" for each in table["instant"].to_pylist()} == {instant}
    served_names = [f"{s.view}__{name}" for s in definitions.services["replay"].selections for name in s.features]
    assert set(table["features"].to_pylist()) == {orjson.dumps(served_names).decode()}
    for fingerprints, checkpoints in zip(
        table["fingerprints"].to_pylist(), table["checkpoints"].to_pylist(), strict=True
    ):
        views = {name: definitions.views[name].fingerprint for name in ("spending", "coupons")}
        assert orjson.loads(fingerprints) == views
        assert orjson.loads(checkpoints) == {name: [[0, 0, len(ORDERS)]] for name in views}


def test_what_does_not_fit_is_dropped_and_counted_and_the_answers_go_on(online: Online, tmp_path: Path) -> None:
    online.add({"Order": ORDERS})
    sampled = [name for name in CUSTOMERS if is_sampled(name, 0.5)]
    log = Memory(most=30)
    requests = [{"feature_service": "replay", "entities": {"customer": sampled[:50]}}]
    answers, metrics = ask(online, tmp_path, log, requests, served_buffer_max=40)
    assert len(answers[0]["results"][0]["values"]) == 50
    assert len(log.messages) == 30
    assert 'headrace_served_dropped_total{reason="buffer full",service="replay"} 10.0' in metrics


def test_a_service_without_log_logs_nothing(online: Online, tmp_path: Path) -> None:
    online.add({"Order": ORDERS})
    log = Memory()
    ask(online, tmp_path, log, [{"feature_service": "fresh", "entities": {"customer": ["ann"]}}])
    assert log.messages == []
