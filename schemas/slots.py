"""Redis Cluster, as far as a client must know it: a key's slot, who has which slot, and where a node sends one.

An address of a Cluster is `redis+cluster://user:password@host:port,host:port` (or `rediss+cluster://`): some of its
nodes, from which the others are learnt.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from schemas.errors import ConfigError

SLOTS = 16_384
CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
AGAIN = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
"""Errors of a Cluster that is being changed: the same command will be answered later."""


class Node(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class Redirect(NamedTuple):
    """A node's word that a slot is elsewhere: for good, or (`asking`) for this command while the slot is moved."""

    asking: bool
    slot: int
    node: Node


def is_cluster(url: str) -> bool:
    """True for the address of a Cluster."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def node_urls(url: str) -> list[str]:
    """The plain URLs of the nodes that a Cluster's address names. Raises ConfigError, without the URL's secrets."""
    scheme, _, rest = url.partition("://")
    places, _, database = rest.partition("/")
    login, at, hosts = places.rpartition("@")
    if scheme not in CLUSTER_SCHEMES or database.strip("0") or not all(hosts.split(",")):
        raise ConfigError(
            "the address of a Redis Cluster is redis+cluster://host:port,host:port",
            got=f"{scheme}://{hosts}/{database}",
            hint="a Cluster has database 0 alone",
        )
    return [f"{CLUSTER_SCHEMES[scheme]}://{login}{at}{host}" for host in hosts.split(",")]


def node_url(url: str, node: Node) -> str:
    """The plain URL of another node of the same Cluster: the same login."""
    scheme, _, rest = url.partition("://")
    login, at, _ = rest.partition("/")[0].rpartition("@")
    host = f"[{node.host}]" if ":" in node.host else node.host
    return f"{CLUSTER_SCHEMES[scheme]}://{login}{at}{host}:{node.port}"


def slot_of(key: bytes) -> int:
    """A key's slot: that of its hash tag, what stands between the first `{` and the next `}`, where there is one."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            return _slot(key[start + 1 : end])
    return _slot(key)


@lru_cache(1 << 16)
def _slot(tag: bytes) -> int:
    return crc_hqx(tag, 0) % SLOTS


def redirect_of(error: str, asked: str) -> Redirect | None:
    """What `MOVED 3999 host:port` or `ASK …` says; no host means the one that was asked. None for another error."""
    words = error.split()
    if len(words) < 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    return Redirect(words[0] == "ASK", int(words[1]), Node(host.strip("[]") or asked, int(port)))


def owners_of(reply: Iterable[Any], asked: str) -> dict[int, Node]:
    """The master of each slot, from the answer to CLUSTER SLOTS: slots that nobody has are left out."""
    owners: dict[int, Node] = {}
    for first, last, master, *_ in reply:
        host = master[0].decode() if isinstance(master[0], bytes) else master[0]
        node = Node(host or asked, int(master[1]))
        owners |= dict.fromkeys(range(int(first), int(last) + 1), node)
    return owners
