"""How commands get to Redis and answers back: over one connection, or to the nodes of a Cluster, side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.slots import AGAIN, Node, is_cluster, node_url, node_urls, owners_of, redirect_of, slot_of
from stream.settings import StreamSettings

ROUNDS_MAX = 8
"""How often the commands that a Cluster turned away are sent again, as it says; then it is 'not now'."""
PAUSE_S = 0.02
"""Between rounds where a slot is being moved: a key is moved in well under a millisecond."""


class Command(NamedTuple):
    """A command, and a key that says where it belongs. Without one it is for every master: the answer is all theirs."""

    words: Sequence[Any]
    key: bytes | None = None


class Wire(Protocol):
    """Sends commands; raises redis' errors or OSError where nothing can be sent. An error reply is an answer."""

    def execute(self, commands: Sequence[Command]) -> list[Any]: ...

    def close(self) -> None: ...


def open_wire(settings: StreamSettings) -> Wire:
    """A wire of its own; nothing is sent yet. What has failed is never sent again by the client."""
    url = settings.redis_address()
    if is_cluster(url):
        return ClusterWire(url, settings.redis_timeout_s)
    return SingleWire(_client(url, settings.redis_timeout_s))


def open_client(settings: StreamSettings) -> redis.Redis | redis.RedisCluster:
    """redis-py's own client, for what is done once and not in a hurry."""
    url, timeout_s = settings.redis_address(), settings.redis_timeout_s
    if not is_cluster(url):
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    return redis.RedisCluster.from_url(
        node_urls(url)[0], socket_timeout=timeout_s, socket_connect_timeout=timeout_s, require_full_coverage=False
    )


class SingleWire:
    """One Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in the order of the commands."""
        answers = _execute(self._client, [command.words for command in commands])
        return [
            answer if command.key is not None or isinstance(answer, Exception) else [answer]
            for command, answer in zip(commands, answers, strict=True)
        ]

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class ClusterWire:
    """The masters of a Cluster; not to be shared between threads.

    The commands of a slot keep their order. A master that can't be reached answers with its error, and its slots are
    looked up anew for the next call: that is how a failover is followed.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._clients: dict[Node, redis.Redis] = {}
        self._owners: dict[int, Node] = {}
        self._threads = ThreadPoolExecutor(16, "redis-node")

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in the order of the commands."""
        if not self._owners:
            self._look_up()
        answers: list[Any] = [None] * len(commands)
        asking: dict[int, Node] = {}
        left = list(range(len(commands)))
        for number in range(ROUNDS_MAX):
            if number:
                time.sleep(PAUSE_S)
            self._round(commands, left, asking, answers)
            left, asking = self._turned_away(commands, left, answers)
            if not left:
                break
        return answers

    def close(self) -> None:
        """Closes the connections."""
        self._threads.shutdown(wait=True)
        for client in self._clients.values():
            client.close()

    def _round(
        self, commands: Sequence[Command], left: Sequence[int], asking: Mapping[int, Node], answers: list[Any]
    ) -> None:
        everywhere = sorted(set(self._owners.values()))
        by_node: dict[Node, list[int]] = {}
        for at in left:
            key = commands[at].key
            if key is None:
                nodes = everywhere
            else:
                owner = asking.get(at) or self._owners.get(slot_of(key))
                nodes = [owner] if owner is not None else []
                if owner is None:
                    answers[at] = redis.exceptions.ClusterDownError("CLUSTERDOWN nobody has the slot")
            for node in nodes:
                by_node.setdefault(node, []).append(at)
        sent = {
            node: self._threads.submit(self._exchange, node, [(commands[at].words, at in asking) for at in places])
            for node, places in by_node.items()
        }
        found: dict[int, list[Any]] = {}
        for node, future in sent.items():
            for at, answer in zip(by_node[node], future.result(), strict=True):
                found.setdefault(at, []).append(answer)
        for at, each in found.items():
            error = next((answer for answer in each if isinstance(answer, Exception)), None)
            answers[at] = error or (each if commands[at].key is None else each[0])

    def _exchange(self, node: Node, words: Sequence[tuple[Sequence[Any], bool]]) -> list[Any]:
        client = self._clients.get(node) or self._clients.setdefault(
            node, _client(node_url(self._url, node), self._timeout_s)
        )
        flat: list[Sequence[Any]] = []
        places = []
        for each, asking in words:
            if asking:
                flat.append(["ASKING"])
            places.append(len(flat))
            flat.append(each)
        try:
            answers = _execute(client, flat)
        except (redis.exceptions.RedisError, OSError) as error:
            # Somebody else may be master now.
            self._owners = {}
            return [error] * len(words)
        return [answers[at] for at in places]

    def _turned_away(
        self, commands: Sequence[Command], left: Sequence[int], answers: Sequence[Any]
    ) -> tuple[list[int], dict[int, Node]]:
        """The commands to send again, and those of them that are to ask another node."""
        again: list[int] = []
        asking: dict[int, Node] = {}
        moved = False
        for at in left:
            answer = answers[at]
            if not isinstance(answer, redis.exceptions.ResponseError):
                continue
            text = _text(answer)
            redirect = redirect_of(text, self._asked(commands[at].key))
            if redirect is not None:
                again.append(at)
                if redirect.asking:
                    asking[at] = redirect.node
                else:
                    moved = True
                    self._owners[redirect.slot] = redirect.node
            elif text.startswith(AGAIN):
                again.append(at)
                moved = moved or text.startswith("CLUSTERDOWN")
        if moved or not self._owners:
            with suppress(redis.exceptions.RedisError, OSError):
                self._look_up()
        return again, asking

    def _asked(self, key: bytes | None) -> str:
        owner = self._owners.get(slot_of(key)) if key is not None else None
        return owner.host if owner is not None else urlsplit(node_urls(self._url)[0]).hostname or ""

    def _look_up(self) -> None:
        """Asks any node who has which slot."""
        error: Exception = redis.exceptions.ConnectionError("no node of the Cluster answers")
        known = [node_url(self._url, node) for node in self._clients]
        for url in dict.fromkeys([*known, *node_urls(self._url)]):
            client = _client(url, min(self._timeout_s, 2.0))
            try:
                [reply] = _execute(client, [["CLUSTER SLOTS"]], raw=True)
            except (redis.exceptions.RedisError, OSError) as failed:
                error = failed
                continue
            finally:
                client.close()
            if isinstance(reply, Exception):
                error = reply
                continue
            self._owners = owners_of(reply, urlsplit(url).hostname or "")
            return
        raise error


def _client(url: str, timeout_s: float) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def _execute(client: redis.Redis, commands: Sequence[Sequence[Any]], *, raw: bool = False) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    if raw:
        pipeline.response_callbacks.clear()
    for words in commands:
        pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
    return list(pipeline.execute(raise_on_error=False))


def _text(error: redis.exceptions.ResponseError) -> str:
    """The error as Redis wrote it: redis-py takes the first word away where it knows it."""
    for kind, word in (
        (redis.exceptions.MovedError, "MOVED"),
        (redis.exceptions.AskError, "ASK"),
        (redis.exceptions.TryAgainError, "TRYAGAIN"),
        (redis.exceptions.ClusterDownError, "CLUSTERDOWN"),
        (redis.exceptions.MasterDownError, "MASTERDOWN"),
        (redis.exceptions.BusyLoadingError, "LOADING"),
    ):
        if isinstance(error, kind):
            text = str(error)
            return text if text.startswith(word) else f"{word} {text}"
    return str(error)
