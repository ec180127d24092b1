"""The online row's bytes: what a worker writes to Redis and a server reads. DESIGN §5.

All integers are little-endian; every part is a multiple of 8 bytes.

    row         = header, one head for each resolution, slots
    header      = generation (8 raw bytes) | newest event (int64 µs) | slots used (uint32) | slots there are (uint32)
    head, slot  = record = tile key (int64) | words of each cell, in the plan's order
    tile key    = resolution · 2**47 + tile + 2**46     (an integer below 2**53: exact in Lua's doubles)
    empty head  = a record whose tile key is EMPTY_TILE (−1)

Behind the used slots the row's bytes have no meaning. A tile may stand in several records: a reader merges them all.
Cells of variable size live in a HASH beside the row, a field (the 8 bytes of the tile key) for each tile; its value is,
for each variable-size cell of the plan in order: length (uint32) | that many bytes.

    checkpoint  = generation (8 raw bytes) | entries, sorted by (source, partition)
    entry       = source (uint32, index into the plan's sources) | partition (int32) | topic id (16 bytes)
                  | offset (int64: the next one to fold) | newest (int64 µs of the good events below it; NO_EVENT: none)

A row whose generation differs from its shard's checkpoint is absent.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

HEADER = struct.Struct("<8sqII")
ENTRY = struct.Struct("<Ii16sqq")
GENERATION_BYTES = 8
WORD_BYTES = 8
EMPTY_TILE = -1
RESOLUTION_SHIFT = 47
TILE_BIAS = 1 << 46
RESOLUTIONS_MAX = 64
NO_EVENT = -(1 << 53)
"""The `newest` of a partition without a good event: below every event time, and exact in a double."""

TIME_MIN_US = -8_520_336_000_000_000
"""1700-01-01: with TIME_MAX_US the range in which a µs instant is exact in the doubles of Lua."""
TIME_MAX_US = 8_835_955_200_000_000
"""2250-01-01."""


class Position(NamedTuple):
    """How far a shard has folded one partition of one source."""

    source: int
    partition: int
    topic_id: bytes
    offset: int
    newest_us: int


class Checkpoint(NamedTuple):
    """What a shard's rows are the fold of."""

    generation: bytes
    positions: tuple[Position, ...]

    def encode(self) -> bytes:
        return self.generation + b"".join(ENTRY.pack(*p) for p in sorted(self.positions, key=lambda p: p[:2]))

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """The checkpoint in `data`; raises ValueError where the length is impossible."""
        if len(data) < GENERATION_BYTES or (len(data) - GENERATION_BYTES) % ENTRY.size:
            raise ValueError(f"a checkpoint is 8 + n·{ENTRY.size} bytes; got {len(data)}")
        return cls(data[:GENERATION_BYTES], tuple(Position(*e) for e in ENTRY.iter_unpack(data[GENERATION_BYTES:])))


def tile_key(resolution: int, tile: int) -> int:
    """The key of a tile; keys of one resolution are ordered as its tiles are."""
    return (resolution << RESOLUTION_SHIFT) + tile + TILE_BIAS


def entity_key(values: Sequence[str | int | bool]) -> str:
    """The canonical text of an entity's key; `features/sql.py` writes the same in SQL, a test holds them equal.

    A single value stands as it is; several stand as `<bytes of utf-8>:<text>` one after the other, so that no two
    composite keys share a text. A bool is 'true' or 'false'. A value is never None: there is no entity without a key.
    """
    texts = [_text(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return "".join(f"{len(text.encode())}:{text}" for text in texts)


def shard_of(key: str, shards: int) -> int:
    """The shard of an entity: the first four bytes of the md5 of its key's utf-8, little-endian, modulo `shards`."""
    digest = hashlib.md5(key.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "little") % shards


def checkpoint_redis_key(storage_id: str, shard: int) -> bytes:
    """The Redis key of a shard's checkpoint. All keys of a shard share their hash tag, hence one slot of a Cluster."""
    return b"h{%s.%d}" % (storage_id.encode(), shard)


def row_redis_key(storage_id: str, shard: int, key: str) -> bytes:
    """The Redis key of an entity's row."""
    return b"h{%s.%d}:%s" % (storage_id.encode(), shard, key.encode())


def hash_redis_key(storage_id: str, shard: int, key: str) -> bytes:
    """The Redis key of the HASH beside an entity's row."""
    return b"h{%s.%d}#%s" % (storage_id.encode(), shard, key.encode())


def _text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
