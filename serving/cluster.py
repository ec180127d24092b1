"""Reads from a Redis Cluster: one MGET a shard, all shards of a master in one message, the masters side by side.

    redis = open_redis(url, timeout_s=…)      # as serving.connection's, whatever the address names

All keys of a shard are in one slot, so its rows and its checkpoint are still of one moment. A slot that is being moved
is asked again, for at most `timeout_s`; then the answer is NotReady. Rows of plain Feast views are in their
own keys' slots.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import hiredis

from schemas.errors import NotReady
from schemas.slots import AGAIN, Node, Redirect, is_cluster, node_url, node_urls, owners_of, redirect_of, slot_of
from serving.connection import AsyncRedis, Redis
from serving.resp import Address, Reply, checked, command

PAUSE_S = 0.01
CLUSTER_SLOTS = command(b"CLUSTER", b"SLOTS")
ASKING = command(b"ASKING")
NODES_MAX = 64
"""Nodes that are asked side by side."""
NOBODY = Node("", 0)


def open_redis(url: str, *, timeout_s: float) -> Redis:
    """For plain code."""
    if is_cluster(url):
        return ClusterRedis(url, timeout_s=timeout_s)
    return Redis(Address.of(url), timeout_s=timeout_s)


def open_async(url: str, *, timeout_s: float) -> AsyncRedis:
    """For an event loop."""
    if is_cluster(url):
        return AsyncClusterRedis(url, timeout_s=timeout_s)
    return AsyncRedis(Address.of(url), timeout_s=timeout_s)


@dataclass
class _Piece:
    """What one slot is asked, and where its answers belong."""

    slot: int
    payload: bytes
    replies: int
    take: Callable[[list[Reply]], None]
    asked: Node = NOBODY
    asking: Node | None = None


class _Split:
    """A question as its slots' pieces, and the replies that one Redis would have given."""

    def __init__(self, payload: bytes, count: int) -> None:
        reader = hiredis.Reader()
        reader.feed(payload)
        commands: list[list[bytes]] = []
        while (found := reader.gets()) is not False:
            commands.append(found)
        self.replies: list[Reply] = [None] * count
        self.pieces: list[_Piece] = []
        self._executed: tuple[list[Reply], list[Reply]] | None = None
        if commands and commands[0][0] == b"MULTI":
            self._transaction(commands[1:-1])
        else:
            for at, each in enumerate(commands):
                self._single(at, each)

    def _single(self, at: int, words: list[bytes]) -> None:
        name, keys = words[0], words[1:]
        if name == b"PING":
            self.pieces.append(_Piece(-1, command(b"PING"), 1, lambda replies: self._set(at, replies[0])))
        elif name == b"MGET":
            values: list[Reply] = [None] * len(keys)
            self.replies[at] = values
            for slot, places in _by_slot(keys).items():
                payload = command(b"MGET", *(keys[place] for place in places))
                self.pieces.append(_Piece(slot, payload, 1, _spread(values, places)))
        else:
            key = keys[2] if name == b"EVAL" else keys[0]
            self.pieces.append(_Piece(slot_of(key), command(*words), 1, lambda replies: self._set(at, replies[0])))

    def _transaction(self, commands: list[list[bytes]]) -> None:
        """MULTI, one MGET, HGETALLs, EXEC: the same a slot."""
        keys = [key for words in commands if words[0] == b"MGET" for key in words[1:]]
        hashes = [words[1] for words in commands if words[0] == b"HGETALL"]
        strings: list[Reply] = [None] * len(keys)
        fields: list[Reply] = [None] * len(hashes)
        slots, hash_slots = _by_slot(keys), _by_slot(hashes)
        for slot, places in slots.items():
            beside = hash_slots.get(slot, [])
            payload = b"".join(
                [
                    command(b"MULTI"),
                    command(b"MGET", *(keys[place] for place in places)),
                    *(command(b"HGETALL", hashes[place]) for place in beside),
                    command(b"EXEC"),
                ]
            )
            self.pieces.append(_Piece(slot, payload, len(beside) + 3, _spread_all(strings, places, fields, beside)))
        self._executed = (strings, fields)

    def result(self) -> list[Reply]:
        """The replies, once every piece has been answered."""
        if self._executed is not None:
            strings, fields = self._executed
            self.replies[-1] = [strings, *fields]
        return self.replies

    def _set(self, at: int, reply: Reply) -> None:
        self.replies[at] = reply


class _Cluster:
    """Who has which slot; what is common to both kinds of reads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.owners: dict[int, Node] = {}

    def node_of(self, piece: _Piece) -> Node:
        if piece.slot < 0:
            return next(iter(self.owners.values()))
        node = piece.asking or self.owners.get(piece.slot)
        if node is None:
            self.owners = {}
            raise NotReady("a slot of the Redis Cluster has no master", got=str(piece.slot), hint="see CLUSTER INFO")
        return node

    def grouped(self, pieces: Sequence[_Piece]) -> dict[Node, list[_Piece]]:
        groups: dict[Node, list[_Piece]] = {}
        for piece in pieces:
            piece.asked = self.node_of(piece)
            groups.setdefault(piece.asked, []).append(piece)
        return groups

    def take(self, pieces: Sequence[_Piece], replies: list[Reply]) -> list[_Piece]:
        """Hands the replies on; answers the pieces that must be asked again."""
        again = []
        at = 0
        for piece in pieces:
            asked_first = piece.asking is not None
            mine = replies[at + asked_first : at + asked_first + piece.replies]
            at += piece.replies + asked_first
            piece.asking = None
            # In a transaction the first error says why; EXEC's own only that there was one.
            error = next((reply for reply in mine if isinstance(reply, Exception)), None)
            text = "" if error is None else str(error)
            redirect = redirect_of(text, piece.asked.host)
            if redirect is not None:
                self._redirect(piece, redirect)
                again.append(piece)
            elif text.startswith(AGAIN):
                again.append(piece)
            else:
                checked(mine, Address.of(node_url(self.url, piece.asked)))
                piece.take(mine)
        return again

    def _redirect(self, piece: _Piece, redirect: Redirect) -> None:
        if not redirect.asking:
            self.owners[redirect.slot] = redirect.node
        elif piece.replies == 1:
            # A transaction can't ask: its slot will have moved in a moment.
            piece.asking = redirect.node


def payload_of(pieces: Sequence[_Piece]) -> tuple[bytes, int]:
    """What a node is sent for its pieces, and how many replies that makes."""
    parts = [ASKING + piece.payload if piece.asking is not None else piece.payload for piece in pieces]
    return b"".join(parts), sum(piece.replies + (piece.asking is not None) for piece in pieces)


class ClusterRedis(Redis):
    """One connection a master; questions of several threads take turns at each."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        super().__init__(Address.of(node_urls(url)[0]), timeout_s=timeout_s)
        self._cluster = _Cluster(url)
        self._nodes: dict[Node, Redis] = {}
        self._threads = ThreadPoolExecutor(NODES_MAX, "redis-node")

    def ask(self, payload: bytes, count: int) -> list[Reply]:
        """As `Redis.ask`: `payload` is a MULTI of one MGET and HGETALLs, or commands of keys that are `together`.

        An MGET may name any keys.
        """
        split = _Split(payload, count)
        left = split.pieces
        deadline = time.monotonic() + self._timeout_s
        while left:
            if not self._cluster.owners:
                self._look_up()
            groups = self._cluster.grouped(left)
            asked = {
                node: self._threads.submit(self._node(node).exchange, *payload_of(pieces))
                for node, pieces in groups.items()
            }
            left = []
            for node, pieces in groups.items():
                try:
                    left += self._cluster.take(pieces, asked[node].result())
                except NotReady:
                    self._cluster.owners = {}
                    raise
            if left:
                _give_up_after(deadline, self._cluster.url, left)
                time.sleep(PAUSE_S)
        return split.result()

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        """The places of the keys of each slot."""
        return list(_by_slot(keys).values())

    def masters(self) -> list[Redis]:
        """A connection to each master, as the Cluster says now."""
        self._look_up()
        return [self._node(node) for node in dict.fromkeys(self._cluster.owners.values())]

    def close(self) -> None:
        """Ends the connections."""
        self._threads.shutdown(wait=True)
        for node in self._nodes.values():
            node.close()

    def _node(self, node: Node) -> Redis:
        if node not in self._nodes:
            self._nodes[node] = Redis(Address.of(node_url(self._cluster.url, node)), timeout_s=self._timeout_s)
        return self._nodes[node]

    def _look_up(self) -> None:
        failed: NotReady | None = None
        for address in _to_ask(self._cluster.url, self._nodes):
            redis = Redis(address, timeout_s=self._timeout_s)
            try:
                self._cluster.owners = owners_of(redis.ask(CLUSTER_SLOTS, 1)[0], address.host)
                return
            except NotReady as error:
                failed = error
            finally:
                redis.close()
        assert failed is not None
        raise failed


class AsyncClusterRedis(AsyncRedis):
    """One pipelined connection a master; for one event loop."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        super().__init__(Address.of(node_urls(url)[0]), timeout_s=timeout_s)
        self._cluster = _Cluster(url)
        self._nodes: dict[Node, AsyncRedis] = {}
        self._looking: asyncio.Task[None] | None = None

    async def ask(self, payload: bytes, count: int) -> list[Reply]:
        """As `AsyncRedis.ask`: `payload` is one MGET, a MULTI of one MGET and HGETALLs, or a PING."""
        split = _Split(payload, count)
        left = split.pieces
        deadline = time.monotonic() + self._timeout_s
        while left:
            if not self._cluster.owners:
                await self._look_up()
            groups = self._cluster.grouped(left)
            asked: list[Coroutine[Any, Any, list[Reply]]] = [
                self._node(node).exchange(*payload_of(pieces)) for node, pieces in groups.items()
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            left = []
            for pieces, answer in zip(groups.values(), answers, strict=True):
                try:
                    if isinstance(answer, BaseException):
                        raise answer
                    left += self._cluster.take(pieces, answer)
                except NotReady:
                    self._cluster.owners = {}
                    raise
            if left:
                _give_up_after(deadline, self._cluster.url, left)
                await asyncio.sleep(PAUSE_S)
        return split.result()

    async def close(self) -> None:
        """Ends the connections; questions under way raise NotReady."""
        for node in self._nodes.values():
            await node.close()

    def _node(self, node: Node) -> AsyncRedis:
        if node not in self._nodes:
            self._nodes[node] = AsyncRedis(Address.of(node_url(self._cluster.url, node)), timeout_s=self._timeout_s)
        return self._nodes[node]

    async def _look_up(self) -> None:
        # One look for all questions that wait for it.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._ask_who())
        await asyncio.shield(self._looking)

    async def _ask_who(self) -> None:
        failed: NotReady | None = None
        for address in _to_ask(self._cluster.url, self._nodes):
            redis = AsyncRedis(address, timeout_s=self._timeout_s)
            try:
                [reply] = await redis.ask(CLUSTER_SLOTS, 1)
                self._cluster.owners = owners_of(reply, address.host)
                return
            except NotReady as error:
                failed = error
            finally:
                await redis.close()
        assert failed is not None
        raise failed


def _to_ask(url: str, known: Mapping[Node, object]) -> list[Address]:
    urls = dict.fromkeys([*(node_url(url, node) for node in known), *node_urls(url)])
    return [Address.of(each) for each in urls]


def _give_up_after(deadline: float, url: str, left: Sequence[_Piece]) -> None:
    if time.monotonic() > deadline:
        raise NotReady(
            "a slot of the Redis Cluster is being moved, and not done yet",
            where=str(left[0].asked.port),
            got=f"slot {left[0].slot}",
            hint="ask again in a second",
        )


def _by_slot(keys: Sequence[bytes]) -> dict[int, list[int]]:
    slots: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        slots.setdefault(slot_of(key), []).append(place)
    return slots


def _spread(values: list[Reply], places: Sequence[int]) -> Callable[[list[Reply]], None]:
    def take(replies: list[Reply]) -> None:
        for place, value in zip(places, replies[0], strict=True):
            values[place] = value

    return take


def _spread_all(
    strings: list[Reply], places: Sequence[int], fields: list[Reply], beside: Sequence[int]
) -> Callable[[list[Reply]], None]:
    def take(replies: list[Reply]) -> None:
        results = replies[-1]
        for place, value in zip(places, results[0], strict=True):
            strings[place] = value
        for place, value in zip(beside, results[1:], strict=True):
            fields[place] = value

    return take
