"""Worker, lander and server as processes of their own, each the command that a deployment runs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from schemas.errors import HeadraceError
from schemas.settings import ConnectionSettings

_LIBC = ctypes.CDLL(None)
STOP_TIMEOUT_S = 60.0
LOG_LINES_SHOWN = 8
PR_SET_PDEATHSIG = 1
ENDED_AS_TOLD = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit codes of a process that finished its work after SIGTERM; uvicorn ends by the signal itself."""


class ProcessFailed(HeadraceError):
    """A process of the demo ended before it was told to."""


class Process:
    """A running `headrace` command. Its output is in HOME/demo/<name>.log; it ends with the demo, however that ends."""

    def __init__(self, name: str, arguments: list[str], settings: ConnectionSettings) -> None:
        self.name = name
        self.log = settings.home / "demo" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then stops its processes in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | _environment(settings),
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # started before the demo has any thread
            )

    def check(self) -> None:
        """Raises ProcessFailed, with the end of its log, where it has ended."""
        code = self._process.poll()
        if code is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-LOG_LINES_SHOWN:]
            raise ProcessFailed(
                f"the {self.name} ended by itself",
                got=f"exit code {code}, and at the end of its log:\n" + "\n".join(tail) + "\n",
                hint=f"all of it is in {self.log}",
            )

    def stop(self) -> None:
        """Asks it to finish what it has in hand, and waits. Raises ProcessFailed where it does not end well."""
        self.check()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessFailed(
                f"the {self.name} did not stop", got=f"no end within {STOP_TIMEOUT_S:.0f} s", hint=f"see {self.log}"
            ) from None
        if code not in ENDED_AS_TOLD:
            self.check()

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _environment(settings: ConnectionSettings) -> Mapping[str, str]:
    """The settings that the demo was started with, whatever they came from."""
    return {"HEADRACE_HOME": str(settings.home), "HEADRACE_DEFINITIONS": str(settings.definitions.absolute())}


def _end_with_parent() -> None:
    """Where the system can (Linux), a process gets SIGTERM when the demo is gone without having said so."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
