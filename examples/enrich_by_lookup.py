"""Orders with their customer's segment, looked up over HTTP: a transform in async Python, in front of headrace.

    ORDERS=orders ORDERS_OUT=orders_with_segment LOOKUP_URL=http://127.0.0.1:8000/customers \\
    KAFKA=127.0.0.1:9092 python -m faust -A examples.enrich_by_lookup worker --without-web

It is a topic of its own, so that what was looked up is written down once: workers, the lander and every training set
read the same answer, however the service would answer today. Declare the outgoing event with `id="id"`, and features
over it as over any other; run them by any runner:

    class OrderWithSegment(Event, topic="orders_with_segment", time="at", key=["customer"], id="id"):
        at: datetime
        id: str
        customer: str
        amount: float
        segment: str | None                   # null: the service knew nothing, or could not be asked
        lookup: str                           # found, unknown or failed

Delivery: an order is acknowledged once its enriched event is in Kafka. After a crash some are looked up and written
again, under the same id and key, hence into the same partition, where headrace drops the copy.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import aiohttp
import faust
import orjson

BATCH_MAX = 200
BATCH_WITHIN_S = 0.05
LOOKUPS_MAX = 32
"""At a time: a slow service holds up this many, not the machine."""
LOOKUP_TIMEOUT_S = float(os.environ.get("LOOKUP_TIMEOUT_S", "2"))
ATTEMPTS = 3
PAUSE_S = 0.1

app = faust.App(
    os.environ.get("GROUP", "enrich-by-lookup"),
    broker="kafka://" + os.environ.get("KAFKA", "127.0.0.1:9092"),
    broker_session_timeout=10.0,  # so soon another process takes over from one that died
    broker_heartbeat_interval=3.0,
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    topic_allow_declare=False,
    web_enabled=False,
    store="memory://",
    datadir=Path(tempfile.gettempdir()) / "enrich-by-lookup",
)
raw: Any = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
orders = app.topic(os.environ.get("ORDERS", "orders"), **raw, allow_empty=True)
enriched = app.topic(os.environ.get("ORDERS_OUT", "orders_with_segment"), **raw)


@app.agent(orders)
async def enrich(stream: Any) -> None:
    """Batch by batch, in order. `noack_take` leaves it to us to acknowledge: `take` would have done so by now."""
    timeout = aiohttp.ClientTimeout(total=LOOKUP_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await _enrich(stream.noack_take(BATCH_MAX, within=BATCH_WITHIN_S), session)
    except Exception as error:
        # An error ends the process, and what was not acknowledged comes again. Faust would go on behind it.
        await app.crash(error)
        raise


async def _enrich(batches: AsyncIterable[list[Any]], session: aiohttp.ClientSession) -> None:
    at_a_time = asyncio.Semaphore(LOOKUPS_MAX)
    async for events in batches:
        messages = [event.message for event in events]
        values = await asyncio.gather(*(with_segment(message.value, session, at_a_time) for message in messages))
        sent = [
            await enriched.send(key=message.key, value=value) for message, value in zip(messages, values, strict=True)
        ]
        await asyncio.gather(*sent)
        for event in events:
            event.ack()


async def with_segment(value: bytes | None, session: aiohttp.ClientSession, at_a_time: asyncio.Semaphore) -> bytes:
    """The order with its segment. What is no order goes on as it is: headrace rejects it, with the reason."""
    try:
        order = orjson.loads(value or b"")
        customer = str(order["customer"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return value or b""
    async with at_a_time:
        segment, how = await look_up(customer, session)
    return orjson.dumps(order | {"segment": segment, "lookup": how})


async def look_up(customer: str, session: aiohttp.ClientSession) -> tuple[str | None, str]:
    """The customer's segment and how it came: after three failures the order goes on without."""
    for attempt in range(ATTEMPTS):
        try:
            async with session.get(f"{os.environ['LOOKUP_URL']}/{customer}") as answer:
                if answer.status == 404:
                    return None, "unknown"
                answer.raise_for_status()
                return str(orjson.loads(await answer.read())["segment"]), "found"
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError, TypeError):
            await asyncio.sleep(PAUSE_S * 2**attempt)
    return None, "failed"
