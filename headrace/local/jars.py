"""Jars: resolved by Maven coordinates, checked against the recorded hashes, kept in the environment's folder.

`python -m headrace.local.jars` fetches Kafka's; set-up runs it, so that starting Kafka never needs the network.
`python -m headrace.local.jars spark` fetches Spark's connector to Kafka; `make spark` runs it.
`python -m headrace.local.jars flink` fetches Flink's, for the bench; `make flink` runs it.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(sys.prefix) / "share" / "headrace"
"""Deleting the environment deletes them."""


@dataclass(frozen=True)
class JarSet:
    """Jars that belong together. The recorded ones are kept; what else the resolver brings is there already."""

    what: str
    name: str
    coordinates: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the jars of this environment are."""
        return FOLDER / self.name

    @property
    def hashes_file(self) -> Path:
        """Their names and SHA-256, in the format of sha256sum."""
        return Path(__file__).with_name(f"{self.name}.sha256")

    def recorded(self) -> dict[str, str]:
        """File name -> SHA-256."""
        lines = (line.split() for line in self.hashes_file.read_text().splitlines())
        return {name: digest for digest, name in lines}


# Kafka logs through slf4j and ships no binding; this one writes to the log4j that Kafka brings along.
KAFKA = JarSet("Kafka's jars", "kafka-4.1.0", ("org.apache.kafka:kafka_2.13:4.1.0", "org.slf4j:slf4j-reload4j:1.7.36"))
# pyspark brings Scala, Hadoop and the rest.
SPARK = JarSet(
    "Spark's connector to Kafka",
    "spark-4.0",
    (
        "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.4",
        "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.0.0",
    ),
)
# For the bench alone: what PyFlink, in an environment of its own, reads Kafka with.
FLINK = JarSet("Flink's connector to Kafka", "flink-2.3", ("org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",))
SETS = {"": KAFKA, "spark": SPARK, "flink": FLINK}
FETCH_TIMEOUT_S = 600
READ_TIMEOUT_S = 60


class JarsError(Exception):
    """Kafka's jars are missing, could not be fetched, or are not the recorded ones."""


def class_path() -> list[Path]:
    """The jars to start Kafka with.

    Raises JarsError if one is missing. Contents are checked when they are fetched, not at each start.
    """
    jars = [KAFKA.folder / name for name in KAFKA.recorded()]
    missing = [jar.name for jar in jars if not jar.exists()]
    if missing:
        raise JarsError(
            f"{len(missing)} of Kafka's jars are missing from {KAFKA.folder} ({missing[0]}); run `make setup`"
        )
    return jars


def fetch(jars: JarSet) -> None:
    """Put all the jars in place, or raise JarsError; does nothing, offline, when they are there."""
    recorded = jars.recorded()
    folder = jars.folder
    if _hashes_of(folder.glob("*.jar")) == recorded:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        resolved = [jar for jar in _resolve(jars, Path(scratch)) if jars is KAFKA or jar.name in recorded]
        _check(_hashes_of(resolved), jars)
        staged = Path(scratch) / "staged"
        staged.mkdir()
        for jar in resolved:
            jar.rename(staged / jar.name)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)


def _resolve(jars: JarSet, scratch: Path) -> list[Path]:
    """Let jgo's own resolver download the coordinates and what they depend on, below `scratch`."""
    coordinates = ", ".join(f'"{coordinate}"' for coordinate in jars.coordinates)
    environment = scratch / "jgo.toml"
    environment.write_text(f'[environment]\nname = "{jars.name}"\n[dependencies]\ncoordinates = [{coordinates}]\n')
    options = ["--resolver", "python", "--links", "copy", "--color", "plain", "--timeout", str(READ_TIMEOUT_S)]
    folders = ["--repo-cache", str(scratch / "repository"), "--cache-dir", str(scratch / "cache")]
    command = [sys.executable, "-m", "jgo", *options, *folders, "--file", str(environment), "sync"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, cwd=scratch, check=False)
    except subprocess.TimeoutExpired as error:
        raise JarsError(f"{jars.what}: nothing arrived within {FETCH_TIMEOUT_S} s; {_NEXT_STEP}") from error
    found = sorted((scratch / "repository").rglob("*.jar"))
    if run.returncode != 0 or not found:
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-8:])
        raise JarsError(f"{jars.what}: could not be resolved from Maven Central:\n{tail}\n{_NEXT_STEP}")
    return found


_NEXT_STEP = (
    "check that this machine reaches Maven Central (a mirror can be named in jgo's configuration), then run again"
)


def _hashes_of(jars: Iterator[Path] | list[Path]) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}


def _check(got: dict[str, str], jars: JarSet) -> None:
    recorded = jars.recorded()
    differing = sorted(name for name in recorded.keys() | got.keys() if recorded.get(name) != got.get(name))
    if differing:
        raise JarsError(
            f"{jars.what} are not the recorded ones: {', '.join(differing[:5])} ({len(differing)} in all) differ from"
            f" {jars.hashes_file.name}; nothing was installed. If the coordinates were changed on purpose, record them"
        )


if __name__ == "__main__":
    try:
        fetch(SETS["".join(sys.argv[1:])])
    except JarsError as error:
        sys.exit(f"error: {error}")
