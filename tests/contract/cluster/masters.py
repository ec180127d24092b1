"""A real Redis Cluster on this machine: masters and replicas as processes or containers, slots moved by hand."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import redis

from headrace.local.ports import LOOPBACK
from headrace.local.redis import redis_server
from schemas.slots import SLOTS, slot_of

MASTERS = 3
NODE_TIMEOUT_MS = 2_000


class Nodes(Protocol):
    """What a node is here: it answers on a port of the loopback interface, and keeps its data when it is killed."""

    def start(self, port: int, options: Sequence[str]) -> None:
        """Runs redis-server with these options, or runs it again."""

    def kill(self, port: int) -> None:
        """SIGKILL."""

    def stop(self) -> None:
        """Nothing of it is left."""


class Processes:
    """Nodes as processes of this test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int, options: Sequence[str]) -> None:
        home = self._folder / str(port)
        home.mkdir(parents=True, exist_ok=True)
        own = ("--bind", LOOPBACK, "--dir", str(home), "--logfile", str(home / "log"))
        self._running[port] = subprocess.Popen([redis_server(), *options, *own])

    def kill(self, port: int) -> None:
        self._running[port].kill()
        self._running[port].wait()

    def stop(self) -> None:
        for port in self._running:
            self.kill(port)


class Cluster:
    """Three masters that share the slots, each with a replica."""

    def __init__(self, nodes: Nodes, ports: list[int]) -> None:
        self.ports = ports
        self._nodes = nodes
        for port in ports:
            self.start(port)
        self._join()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{port}" for port in self.ports[:MASTERS])

    def node(self, port: int) -> redis.Redis:
        return redis.Redis(host=LOOPBACK, port=port, socket_timeout=20)

    def client(self) -> redis.RedisCluster:
        """redis-py's own client of the Cluster, as a witness."""
        return redis.RedisCluster(host=LOOPBACK, port=self.masters()[0], require_full_coverage=False)

    def start(self, port: int) -> None:
        options = {
            "port": port,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "repl-diskless-sync-delay": 0,
        }
        self._nodes.start(port, [word for name, value in options.items() for word in (f"--{name}", str(value))])
        wait_until(lambda: self._answers(port))

    def kill(self, port: int) -> None:
        self._nodes.kill(port)

    def stop(self) -> None:
        self._nodes.stop()

    def masters(self) -> list[int]:
        """The ports of the masters that answer, as they see it themselves."""
        found = []
        for port in self.ports:
            with suppress(redis.RedisError, OSError):
                if self.node(port).info("replication")["role"] == "master" and self._slots_of(port):
                    found.append(port)
        return found

    def replica_of(self, port: int) -> int:
        replicas = self.node(port).info("replication")
        return int(replicas["slave0"]["port"])

    def owner(self, key: bytes) -> int:
        slot = slot_of(key)
        return next(port for port in self.masters() if slot in self._slots_of(port))

    def move(self, slot: int, source: int, target: int, *, pause_s: float = 0.0) -> int:
        """Moves a slot, key by key, as redis-cli does; the number of keys."""
        of, to = self.node(source), self.node(target)
        to.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self._id(source))
        of.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self._id(target))
        moved = 0
        while keys := of.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            of.execute_command("MIGRATE", LOOPBACK, target, "", 0, 5_000, "KEYS", *keys)
            moved += len(keys)
            time.sleep(pause_s)
        for node in (to, of):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", self._id(target))
        return moved

    def _join(self) -> None:
        masters, replicas = self.ports[:MASTERS], self.ports[MASTERS:]
        share = -(-SLOTS // MASTERS)
        for number, port in enumerate(masters):
            first, last = number * share, min((number + 1) * share, SLOTS) - 1
            self.node(port).execute_command("CLUSTER ADDSLOTSRANGE", first, last) if self._is_7(port) else self.node(
                port
            ).execute_command("CLUSTER ADDSLOTS", *range(first, last + 1))
        for port in self.ports[1:]:
            self.node(self.ports[0]).execute_command("CLUSTER MEET", LOOPBACK, port)
        wait_until(
            lambda: all(self.node(p).execute_command("CLUSTER INFO")["cluster_known_nodes"] == "6" for p in self.ports)
        )
        for master, replica in zip(masters, replicas, strict=True):
            self.node(replica).execute_command("CLUSTER REPLICATE", self._id(master))
        wait_until(
            lambda: all(
                self.node(port).execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                and self.node(port).info("replication").get("connected_slaves") == 1
                for port in masters
            )
        )

    def _is_7(self, port: int) -> bool:
        return int(self.node(port).info("server")["redis_version"].split(".")[0]) >= 7

    def _answers(self, port: int) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self.node(port).ping())
        return False

    def _id(self, port: int) -> str:
        answer = self.node(port).execute_command("CLUSTER MYID")
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def _slots_of(self, port: int) -> set[int]:
        """What the node itself says that it has."""
        lines = self.node(port).execute_command("CLUSTER NODES")
        slots: set[int] = set()
        for each in lines.values():
            if "myself" in each["flags"]:
                for span in each["slots"]:
                    slots |= set(range(int(span[0]), int(span[-1]) + 1))
        return slots


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
