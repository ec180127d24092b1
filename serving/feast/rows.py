"""Rows of plain Feast views in Redis: one HASH an entity and view, a field a feature.

    key    hf:<16 hex digits of project and view>:<entity key as Feast serialises it>
    field  <feature> -> its Value in protobuf; the empty field -> event and creation instant (int64 µs, big-endian)

The 16 digits keep projects apart whatever their names: deleting `shop` never touches `myshop`. A row is replaced by one
whose (event, creation) instant is the same or later, never by an older one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from serving.connection import Redis
from serving.entities import EPOCH
from serving.resp import command

STAMP = struct.Struct(">qq")
STAMP_FIELD = b""
WRITE_ROWS = 500
"""Rows a script call: a few milliseconds of Redis, in which nobody else is served."""
SCAN_KEYS = 1_000
_HOUR_MS = 3_600_000

WRITE = b"""
local at = 1
for _, key in ipairs(KEYS) do
  local stamp, expires, fields = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local stored = redis.call('HGET', key, '')
  local newer = true
  if stored then
    local event, created = struct.unpack('>i8i8', stamp)
    local old_event, old_created = struct.unpack('>i8i8', stored)
    newer = event > old_event or (event == old_event and created >= old_created)
  end
  if newer then
    redis.call('HSET', key, '', stamp, unpack(ARGV, at + 3, at + 2 + 2 * fields))
    if expires == '0' then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, expires) end
  end
  at = at + 3 + 2 * fields
end
return #KEYS
"""


class Row(NamedTuple):
    """One row to be written."""

    key: bytes
    event_us: int
    created_us: int
    values: Mapping[str, bytes]


class Found(NamedTuple):
    """One row as it was read."""

    event_us: int
    values: dict[str, bytes]


def prefix(project: str, view: str) -> bytes:
    """What all keys of a view begin with."""
    digest = hashlib.sha256(f"{len(project)}:{project}{view}".encode()).hexdigest()
    return b"hf:%s:" % digest[:16].encode()


def write(redis: Redis, rows: Sequence[Row], ttl: timedelta | None) -> None:
    """Writes rows that are not older than what stands there. With a TTL they go an hour after it has passed."""
    keep_ms = 0 if not ttl else int(ttl.total_seconds() * 1_000) + _HOUR_MS
    now_ms = instant_us(datetime.now(UTC)) // 1_000
    for start in range(0, len(rows), WRITE_ROWS):
        part = rows[start : start + WRITE_ROWS]
        calls = [[part[place] for place in places] for places in redis.together([row.key for row in part])]
        redis.ask(b"".join(_write(call, keep_ms, now_ms) for call in calls), len(calls))


def _write(rows: Sequence[Row], keep_ms: int, now_ms: int) -> bytes:
    """One run of the script."""
    arguments: list[bytes] = []
    for row in rows:
        # A row that is past its TTL already is kept for the hour, so that it reads as too old and not as missing.
        expires = 0 if not keep_ms else max(row.event_us // 1_000 + keep_ms, now_ms + _HOUR_MS)
        arguments += [STAMP.pack(row.event_us, row.created_us), b"%d" % expires, b"%d" % len(row.values)]
        for name, value in row.values.items():
            arguments += [name.encode(), value]
    return command(b"EVAL", WRITE, b"%d" % len(rows), *(row.key for row in rows), *arguments)


def read(redis: Redis, keys: Sequence[bytes], features: Sequence[str] | None) -> list[Found | None]:
    """Rows by key, with the features asked for (None: all); None where there is none."""
    if not keys:
        return []
    if features is None:
        replies = redis.ask(b"".join(command(b"HGETALL", key) for key in keys), len(keys))
        return [_found(dict(zip(flat[::2], flat[1::2], strict=True))) for flat in replies]
    fields = [STAMP_FIELD, *(name.encode() for name in features)]
    replies = redis.ask(b"".join(command(b"HMGET", key, *fields) for key in keys), len(keys))
    return [_found({f: v for f, v in zip(fields, values, strict=True) if v is not None}) for values in replies]


def delete(redis: Redis, project: str, views: Sequence[str]) -> None:
    """Deletes all rows of some views of a project, and nothing else."""
    for view in views:
        unlink(redis, prefix(project, view) + b"*")


def unlink(redis: Redis, pattern: bytes) -> None:
    """Deletes the keys that match a pattern."""
    for keys in scan(redis, pattern):
        calls = [command(b"UNLINK", *(keys[place] for place in places)) for places in redis.together(keys)]
        redis.ask(b"".join(calls), len(calls))


def scan(redis: Redis, pattern: bytes) -> Iterator[list[bytes]]:
    """The keys that match a pattern, in pieces."""
    for master in redis.masters():
        cursor = b"0"
        while True:
            cursor, keys = master.ask(command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % SCAN_KEYS), 1)[0]
            if keys:
                yield keys
            if cursor == b"0":
                break


def instant_us(instant: datetime) -> int:
    """An instant in µs; one without a zone is UTC, as everywhere in Feast."""
    if instant.tzinfo is not None:
        instant = instant.astimezone(UTC).replace(tzinfo=None)
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _found(fields: dict[bytes, bytes]) -> Found | None:
    stamp = fields.pop(STAMP_FIELD, None)
    if stamp is None:
        return None
    return Found(STAMP.unpack(stamp)[0], {name.decode(): value for name, value in fields.items()})
