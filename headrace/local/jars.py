"""Kafka's jars: resolved by Maven coordinates, checked against the recorded hashes, kept in the environment's folder.

`python -m headrace.local.jars` fetches them; set-up runs it, so that starting Kafka never needs the network.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

KAFKA_VERSION = "4.1.0"
# Kafka logs through slf4j and ships no binding; this one writes to the log4j that Kafka brings along.
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-reload4j:1.7.36")
HASHES_FILE = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
FETCH_TIMEOUT_S = 600
READ_TIMEOUT_S = 60


class JarsError(Exception):
    """Kafka's jars are missing, could not be fetched, or are not the recorded ones."""


def jars_folder() -> Path:
    """Where the jars of this environment are; deleting the environment deletes them."""
    return Path(sys.prefix) / "share" / "headrace" / f"kafka-{KAFKA_VERSION}"


def class_path() -> list[Path]:
    """The jars to start Kafka with.

    Raises JarsError if one is missing. Contents are checked when they are fetched, not at each start.
    """
    jars = [jars_folder() / name for name in _recorded_hashes()]
    missing = [jar.name for jar in jars if not jar.exists()]
    if missing:
        raise JarsError(
            f"{len(missing)} of Kafka's jars are missing from {jars_folder()} ({missing[0]}); run `make setup`"
        )
    return jars


def fetch() -> None:
    """Put all the jars in place, or raise JarsError; does nothing, offline, when they are there."""
    recorded = _recorded_hashes()
    folder = jars_folder()
    if _hashes_of(folder.glob("*.jar")) == recorded:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        resolved = _resolve(Path(scratch))
        _check(_hashes_of(resolved), recorded)
        staged = Path(scratch) / "staged"
        staged.mkdir()
        for jar in resolved:
            jar.rename(staged / jar.name)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)


def _resolve(scratch: Path) -> list[Path]:
    """Let jgo's own resolver download the coordinates and what they depend on, below `scratch`."""
    coordinates = ", ".join(f'"{coordinate}"' for coordinate in COORDINATES)
    environment = scratch / "jgo.toml"
    environment.write_text(f'[environment]\nname = "kafka"\n[dependencies]\ncoordinates = [{coordinates}]\n')
    options = ["--resolver", "python", "--links", "copy", "--color", "plain", "--timeout", str(READ_TIMEOUT_S)]
    folders = ["--repo-cache", str(scratch / "repository"), "--cache-dir", str(scratch / "cache")]
    command = [sys.executable, "-m", "jgo", *options, *folders, "--file", str(environment), "sync"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, cwd=scratch, check=False)
    except subprocess.TimeoutExpired as error:
        raise JarsError(f"Kafka's jars did not arrive within {FETCH_TIMEOUT_S} s; {_NEXT_STEP}") from error
    jars = sorted((scratch / "repository").rglob("*.jar"))
    if run.returncode != 0 or not jars:
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-8:])
        raise JarsError(f"Kafka's jars could not be resolved from Maven Central:\n{tail}\n{_NEXT_STEP}")
    return jars


_NEXT_STEP = (
    "check that this machine reaches Maven Central (a mirror can be named in jgo's configuration), then run again"
)


def _recorded_hashes() -> dict[str, str]:
    """File name -> SHA-256, in the format of sha256sum."""
    lines = (line.split() for line in HASHES_FILE.read_text().splitlines())
    return {name: digest for digest, name in lines}


def _hashes_of(jars: Iterator[Path] | list[Path]) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}


def _check(got: dict[str, str], recorded: dict[str, str]) -> None:
    differing = sorted(name for name in recorded.keys() | got.keys() if recorded.get(name) != got.get(name))
    if differing:
        raise JarsError(
            f"Kafka's jars are not the recorded ones: {', '.join(differing[:5])} ({len(differing)} in all) differ from"
            f" {HASHES_FILE.name}; nothing was installed. If the coordinates were changed on purpose, record them"
        )


if __name__ == "__main__":
    try:
        fetch()
    except JarsError as error:
        sys.exit(f"error: {error}")
