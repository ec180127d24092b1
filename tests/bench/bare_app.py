"""What one would write by hand for one request of the bench and nothing else: ASGI, one MGET, NumPy, orjson.

It knows the rows' layout, the views and the windows beforehand, adds DOUBLEs as DOUBLEs, checks nothing, and answers
the same columns, statuses and timestamps. `BARE` in the environment is JSON: redis, project, service.
"""

from __future__ import annotations

import json
import os
import struct
import time
from typing import Any

import numpy as np
import orjson

from features.cells import record_words
from schemas.row import RESOLUTION_SHIFT, TILE_BIAS, checkpoint_redis_key, row_redis_key, shard_of
from serving.connection import AsyncRedis
from serving.resp import Address, command
from tests.bench.serving_data import definitions

SETTINGS = json.loads(os.environ["BARE"])
DEFINITIONS = definitions(SETTINGS["project"])
VIEWS = [DEFINITIONS.views[selection.view] for selection in DEFINITIONS.services[SETTINGS["service"]].selections]
NAMES = [feature.name for view in VIEWS for feature in view.features]
WORDS = record_words(VIEWS[0].cells)
WINDOWED = VIEWS[0].name.startswith("windowed")
HOUR = 3_600_000_000
RECORD = struct.Struct("<qqQQqqdd") if WINDOWED else struct.Struct("<q" + "qqqd" * 10)
JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
REDIS = AsyncRedis(Address.of(SETTINGS["redis"]), timeout_s=5)


def ranges(now_us: int) -> list[tuple[int, int]]:
    hours = (1 << RESOLUTION_SHIFT) + TILE_BIAS
    five = 300_000_000
    return [
        (TILE_BIAS + (now_us - HOUR) // five, TILE_BIAS + now_us // five + 1),
        (hours + (now_us - 24 * HOUR) // HOUR, hours + now_us // HOUR + 1),
    ]


def few(row: bytes, now_us: int) -> list[Any]:
    """Ten features of one row, in a plain loop."""
    used = int.from_bytes(row[16:20], "little")
    records = RECORD.iter_unpack(row[24 : 24 + (2 + used if WINDOWED else 1) * WORDS * 8])
    if not WINDOWED:
        return list(next(records)[4::4])
    answers: list[Any] = []
    sums = [[0, 0.0, float("inf"), float("-inf")] for _ in range(2)]
    bounds = ranges(now_us)
    for key, count, low, middle, high, _, least, most in records:
        for into, (first, last) in zip(sums, bounds, strict=True):
            if first <= key < last:
                into[0] += count
                into[1] += (low + (middle << 64) + (high << 128)) / (1 << 84)
                if least < into[2]:  # noqa: PLR1730 (a call costs more than the comparison)
                    into[2] = least
                if most > into[3]:  # noqa: PLR1730
                    into[3] = most
    for count, total, least, most in sums:
        answers += [count, total, total / count, least, most]
    return answers


def many(rows: list[bytes], now_us: int) -> list[Any]:
    """Ten columns of many rows, by NumPy."""
    if not WINDOWED:
        words = np.frombuffer(b"".join([row[24 : 24 + WORDS * 8] for row in rows]), np.float64).reshape(-1, WORDS)
        return [np.ascontiguousarray(words[:, at]) for at in range(4, WORDS, 4)]
    counts = np.array([2 + int.from_bytes(row[16:20], "little") for row in rows])
    data = b"".join([row[24 : 24 + n * WORDS * 8] for row, n in zip(rows, counts.tolist(), strict=True)])
    words = np.frombuffer(data, np.int64).reshape(-1, WORDS)
    owners = np.repeat(np.arange(len(rows)), counts)
    keys = words[:, 0]
    columns: list[Any] = []
    for first, last in ranges(now_us):
        inside = np.flatnonzero((keys >= first) & (keys < last))
        chosen = words.take(inside, axis=0)
        starts = np.searchsorted(owners.take(inside), np.arange(len(rows)))
        number = np.add.reduceat(chosen[:, 1], starts)
        high, middle = chosen[:, 4].astype(np.float64), chosen[:, 3].view(np.uint64).astype(np.float64)
        total = np.add.reduceat(high * 2.0**44 + middle * 2.0**-20, starts)
        floats = chosen.view(np.float64)
        least, most = np.minimum.reduceat(floats[:, 6], starts), np.maximum.reduceat(floats[:, 7], starts)
        columns += [number, total, total / number, least, most]
    return columns


def read(body: bytes) -> tuple[list[str], list[bytes], list[bytes]]:
    drivers = orjson.loads(body)["entities"]["driver"]
    rows, checkpoints = [], {}
    for view in VIEWS:
        for driver in drivers:
            shard = shard_of(driver, view.shards)
            rows.append(row_redis_key(view.storage_id, shard, driver))
            checkpoints[view.storage_id, shard] = checkpoint_redis_key(view.storage_id, shard)
    return drivers, rows, list(checkpoints.values())


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = (await receive())["body"]
    drivers, rows, checkpoints = read(body)
    strings = (await REDIS.ask(command(b"MGET", *rows, *checkpoints), 1))[0][: len(rows)]
    now_us = time.time_ns() // 1_000
    count = len(drivers)
    if count == 1:
        columns: list[Any] = [[value] for row in strings for value in few(row, now_us)]
    else:
        merged = [many(strings[n * count : (n + 1) * count], now_us) for n in range(len(VIEWS))]
        columns = [column for view in merged for column in view]
    present = ["PRESENT"] * count
    stamps = [
        np.frombuffer(b"".join([row[8:16] for row in strings[n * count : (n + 1) * count]]), "datetime64[us]")
        for n in range(len(VIEWS))
    ]
    results: list[Any] = [
        {"values": drivers, "statuses": present, "event_timestamps": ["1970-01-01T00:00:00Z"] * count}
    ]
    for number, values in enumerate(columns):
        results.append({"values": values, "statuses": present, "event_timestamps": stamps[number // 10]})
    answer = orjson.dumps({"metadata": {"feature_names": ["driver", *NAMES]}, "results": results}, option=JSON)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
