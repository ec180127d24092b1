"""The nodes of a Redis Cluster as containers that share one network: inside and outside a node has the same address."""

from __future__ import annotations

from collections.abc import Sequence

from testcontainers.core.container import DockerContainer

from headrace.local.ports import LOOPBACK
from tests.containers.services import REDIS_IMAGE, on_loopback


class Containers:
    """As tests/contract/cluster/masters.Nodes says. A container that does nothing holds the network of the others."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._network = on_loopback(REDIS_IMAGE, {port: port for port in ports}).with_command("sleep infinity")
        self._network.start()
        self._nodes: dict[int, DockerContainer] = {}

    def start(self, port: int, options: Sequence[str]) -> None:
        if port in self._nodes:
            self._nodes[port].get_wrapped_container().start()
            return
        shared = f"container:{self._network.get_wrapped_container().id}"
        # Nobody but this machine reaches the ports: they are published on its loopback interface.
        command = ["redis-server", *options, "--protected-mode", "no", "--cluster-announce-ip", LOOPBACK]
        node = DockerContainer(REDIS_IMAGE).with_kwargs(network_mode=shared).with_command(command)
        self._nodes[port] = node.start()

    def kill(self, port: int) -> None:
        self._nodes[port].get_wrapped_container().kill()

    def stop(self) -> None:
        for node in (*self._nodes.values(), self._network):
            node.stop()
