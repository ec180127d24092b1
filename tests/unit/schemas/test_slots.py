"""Slots and redirections of Redis Cluster, and its addresses."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from schemas.row import checkpoint_redis_key, hash_redis_key, row_redis_key
from schemas.slots import Node, Redirect, is_cluster, node_url, node_urls, owners_of, redirect_of, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    # Of the Cluster specification, and of `CLUSTER KEYSLOT`.
    [(b"123456789", 0x31C3), (b"foo", 12182), (b"{foo}.bar", 12182), (b"", 0)],
)
def test_the_slot_of_a_key(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


def test_an_empty_tag_is_none() -> None:
    assert slot_of(b"{}foo{bar}") not in (slot_of(b""), slot_of(b"bar"))


def test_all_keys_of_a_shard_are_in_one_slot() -> None:
    keys = [checkpoint_redis_key("s1", 7), row_redis_key("s1", 7, "a}{b"), hash_redis_key("s1", 7, "{x}")]
    assert len(set(map(slot_of, keys))) == 1


def test_redirections() -> None:
    assert redirect_of("MOVED 3999 10.0.0.1:6381", "here") == Redirect(False, 3999, Node("10.0.0.1", 6381))
    assert redirect_of("ASK 1 :7000", "here") == Redirect(True, 1, Node("here", 7000))
    assert redirect_of("MOVED 1 [::1]:7000", "here") == Redirect(False, 1, Node("::1", 7000))
    assert redirect_of("TRYAGAIN Multiple keys", "here") is None


def test_owners() -> None:
    owners = owners_of([[0, 1, [b"a", 1, b"id"], [b"replica", 2, b"id"]], [5, 5, [b"", 3, b"id"]]], "asked")
    assert owners == {0: Node("a", 1), 1: Node("a", 1), 5: Node("asked", 3)}


def test_addresses() -> None:
    url = "rediss+cluster://me:s%40crt@h1:1,h2:2/0"
    assert is_cluster(url)
    assert not is_cluster("redis://h1:1/0")
    assert node_urls(url) == ["rediss://me:s%40crt@h1:1", "rediss://me:s%40crt@h2:2"]
    assert node_url(url, Node("::1", 3)) == "rediss://me:s%40crt@[::1]:3"
    with pytest.raises(ConfigError, match="database 0 alone") as raised:
        node_urls("redis+cluster://:secret@h1:1/3")
    assert "secret" not in str(raised.value)
