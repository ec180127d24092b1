"""The bench's work on plain Faust: `python faust_take.py JSON`. Events by `take()`, tiles of five minutes in memory,
their absolute values to Redis. It counts from its first batch to `events`, prints the rate, and ends."""

import json
import os
import struct
import sys
import time

import faust
import redis.asyncio as redis

HOP_MS = 300_000
what = json.loads(sys.argv[1])


class Click(faust.Record, serializer="json"):
    at: int
    user: str
    amount: float
    n: int


app = faust.App(
    what["prefix"],
    broker=f"kafka://{what['kafka']}",
    web_enabled=False,
    store="memory://",
    consumer_auto_offset_reset="earliest",
    stream_buffer_maxsize=16_384,
)
topic = app.topic(what["topic"], value_type=Click)


@app.agent(topic)
async def fold(stream):
    client = redis.Redis(host=what["redis"][0], port=what["redis"][1])
    tiles, count, began = {}, 0, 0.0
    async for clicks in stream.take(10_000, within=1.0):
        began = began or time.perf_counter()
        changed = set()
        for click in clicks:
            key = (click.user, click.at // HOP_MS)
            old = tiles.get(key)
            if old is None:
                tiles[key] = [1, click.amount, click.amount, click.amount]
            else:
                old[0] += 1
                old[1] += click.amount
                old[2], old[3] = min(old[2], click.amount), max(old[3], click.amount)
            changed.add(key)
        pipeline = client.pipeline(transaction=False)
        for key in changed:
            pipeline.hset(f"{what['prefix']}:{key[0]}", str(key[1]), struct.pack("<qddd", *tiles[key]))
        await pipeline.execute()
        count += len(clicks)
        if count >= what["events"]:
            sys.__stdout__.write(json.dumps({"rate": count / (time.perf_counter() - began)}) + "\n")
            sys.__stdout__.flush()
            os._exit(0)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error"]
    app.main()
