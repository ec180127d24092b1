"""One service of this machine: started detached, found again, stopped. The lock on its pid file says that it runs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError

POLL_S = 0.05
LAUNCH_TIMEOUT_S = 20
LOG_TAIL_LINES = 12
LOG_BYTES_MAX = 10 << 20
"""A log longer than this is set aside, once, when its service is started."""


@dataclass(frozen=True)
class Service:
    """A service by its name and folder. The folder holds its data, its configuration, its log and its pid file."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder / "out.log"

    @property
    def pid_file(self) -> Path:
        """Locked by the running service; without the lock its content means nothing."""
        return self.folder / "pid"

    def pid(self) -> int | None:
        """The process id if the service runs, None if not: the kernel's word, not the file's."""
        try:
            file = os.open(self.pid_file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _read_pid(file)
        finally:
            os.close(file)
        return None

    def start(self, command: Sequence[str]) -> None:
        """Start the command, detached from this process and its terminal. Raises ConfigError where it can't be."""
        self._set_long_log_aside()
        launcher = Path(__file__).with_name("launch.py")
        run = subprocess.run(
            [sys.executable, "-I", "-S", str(launcher), str(self.pid_file), str(self.log), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LAUNCH_TIMEOUT_S,
            start_new_session=True,
            cwd=self.folder,
            check=False,
        )
        if run.returncode != 0:
            raise ConfigError(f"{self.name} could not be started", got=run.stderr.strip(), hint=f"see {self.log}")

    def stop(self, timeout_s: float) -> bool:
        """Ask the service to end, kill it after `timeout_s`. False if it did not run."""
        pid = self.pid()
        if pid is None:
            return False
        for sign, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, timeout_s)):
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                return True
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if self.pid() != pid:
                    return True
                time.sleep(POLL_S)
        raise ConfigError(f"{self.name} can't be stopped", got=f"process {pid} ignores SIGKILL", hint="see its state")

    def _set_long_log_aside(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".old.log"))


def tail(file: Path) -> str:
    """The last lines of a log; nothing where there is none."""
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    except FileNotFoundError:
        return ""


def _read_pid(file: int) -> int | None:
    """The lock is taken a moment before the number is written."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        text = os.pread(file, 32, 0)
        if text.isdigit():
            return int(text)
        time.sleep(POLL_S)
    return None
