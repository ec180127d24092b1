"""The local Kafka and Redis of one HEADRACE_HOME: brought up, taken down, looked at.

`HOME/local.json` says where they are ({"kafka": "127.0.0.1:p", "redis": "redis://127.0.0.1:p/0"}); settings that name
no Kafka or no Redis find it there. Data stays in HOME/kafka and HOME/redis across `down`, crashes and reboots, and
ports stay the same as long as nobody else has taken them.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from headrace.local.kafka import LocalKafka
from headrace.local.ports import free_ports, is_free
from headrace.local.process import POLL_S
from headrace.local.redis import LocalRedis
from schemas.errors import ConfigError, NotReady

Name = Literal["kafka", "redis"]
NAMES: tuple[Name, ...] = ("kafka", "redis")
Report = Callable[[str], None]

ADDRESSES_FILE = "local.json"
LOCK_TIMEOUT_S = 400
"""Longer than starting both services may take."""
STARTS_MAX = 3
"""A port found free can be taken before the service has it."""


def up(home: Path, names: Sequence[Name] = NAMES, report: Report = lambda line: None) -> dict[Name, str]:
    """Start what does not run yet, wait until it answers, and return where it is.

    Data of earlier runs is kept. Raises ConfigError with the end of the service's log where one can't start, and
    NotReady where one runs and does not answer.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        started = [name for name in names if _service(home, name).service.pid() is None]
        for name in started:
            _start(home, name, report)
        for name in names:
            _wait(home, name, 1 if name in started else 0, report)
        addresses: dict[Name, str] = {**_addresses(home), **{name: _address(home, name) for name in names}}
        _write(home / ADDRESSES_FILE, addresses)
    return addresses


def down(home: Path, report: Report = lambda line: None) -> list[Name]:
    """Stop what of ours runs; the names of what was stopped. Data stays."""
    home = home.resolve()
    if not home.exists():
        return []
    with _locked(home):
        (home / ADDRESSES_FILE).unlink(missing_ok=True)
        stopped: list[Name] = []
        for name in NAMES:
            local = _service(home, name)
            if local.service.pid() is not None:
                report(f"stopping {local.service.name}")
                local.service.stop(local.stop_timeout_s)
                stopped.append(name)
    return stopped


def running(home: Path) -> dict[Name, int]:
    """The process ids of what runs."""
    pids = {name: _service(home.resolve(), name).service.pid() for name in NAMES}
    return {name: pid for name, pid in pids.items() if pid is not None}


def _service(home: Path, name: Name) -> LocalKafka | LocalRedis:
    return LocalKafka(home / "kafka") if name == "kafka" else LocalRedis(home / "redis")


def _start(home: Path, name: Name, report: Report) -> None:
    local = _service(home, name)
    local.folder.mkdir(parents=True, exist_ok=True)
    report(f"starting {local.service.name}")
    ports = _ports(local.folder)
    if len(ports) != local.ports_needed or not all(map(is_free, ports)):
        ports = free_ports(local.ports_needed)
        _write(local.folder / "ports.json", ports)
    local.start(ports)


def _wait(home: Path, name: Name, starts: int, report: Report) -> None:
    """Until it answers. One that was found dying is started anew, one whose port was taken on another port."""
    local = _service(home, name)
    deadline = time.monotonic() + local.start_timeout_s
    while not local.is_healthy(_ports(local.folder)):
        if local.service.pid() is None:
            if starts == STARTS_MAX or (starts > 0 and all(map(is_free, _ports(local.folder)))):
                raise ConfigError(
                    f"{local.service.name} ended while it started",
                    got=f"in its log:\n{local.log_tail()}\n",
                    hint=f"its logs and data are in {local.folder}",
                )
            starts += 1
            _start(home, name, report)
        if time.monotonic() > deadline:
            raise NotReady(
                f"{local.service.name} runs (process {local.service.pid()}) but does not answer",
                got=f"no answer within {local.start_timeout_s} s",
                hint=f"see {local.folder}, or run `headrace down` and `headrace up`",
            )
        time.sleep(POLL_S)


def _address(home: Path, name: Name) -> str:
    local = _service(home, name)
    return local.address(_ports(local.folder))


def _ports(folder: Path) -> list[int]:
    """The ports it was last started on; none where there is no readable record."""
    try:
        ports = json.loads((folder / "ports.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return ports if isinstance(ports, list) and all(isinstance(port, int) for port in ports) else []


def _addresses(home: Path) -> dict[Name, str]:
    """What local.json says of services that still run."""
    return {name: _address(home, name) for name in running(home)}


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One `up` or `down` of a home at a time. The kernel lets go of the lock when its holder ends."""
    lock = os.open(home / "local.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotReady(
                        f"another `headrace up` or `down` has been at work in {home} for {LOCK_TIMEOUT_S} s",
                        hint="wait for it, or end it",
                    ) from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(lock)


def _write(file: Path, value: object) -> None:
    """All or nothing, whenever this process ends."""
    scratch = file.with_name(f"{file.name}.{os.getpid()}.new")
    scratch.write_text(json.dumps(value))
    scratch.replace(file)
