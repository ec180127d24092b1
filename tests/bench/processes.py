"""Memory of a process and all below it, as a bench shows it."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from pathlib import Path

LOOK_EVERY_S = 0.2


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        # Threads come and go.
        with suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def resident_mb(pid: int) -> float:
    """Of the process and all below it; what they share counts once."""
    return sum(map(_own_mb, family(pid)))


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Waits for the process; the most that it and all below it had."""
    peak = 0.0
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(LOOK_EVERY_S):
        peak = max(peak, resident_mb(process.pid))
    return peak


def _own_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
