"""What each engine of training sets promises: `train` refuses what one can't do, docs/runners.md shows the table.

That every value is that of its instant, and the same by every engine, is no capability.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from schemas.errors import RequestError


class Capability(StrEnum):
    """What an engine may be able to do."""

    ARRIVAL = "computes what was known by arrival (`--known-at arrival`)"
    MANIFEST = "writes a manifest, from which the same bytes are made again"
    MACHINES = "uses more than one machine"


ENGINES: dict[str, Mapping[Capability, str]] = {
    "local": {Capability.MACHINES: "DuckDB and NumPy in one process, on all its cores"},
    "spark": {
        Capability.ARRIVAL: "a bucket is read at each row's own instant alone",
        Capability.MANIFEST: "its tasks read the files, and nobody notes which",
    },
}
"""By engine, what it lacks and why."""


def check_engine(engine: str, known_at: str) -> None:
    """Raises RequestError where the engine can't compute what is asked."""
    lacks = ENGINES[engine]
    if known_at == "arrival" and Capability.ARRIVAL in lacks:
        raise RequestError(
            f"the engine {engine} computes what was true at each instant",
            got=f"--known-at {known_at}; {lacks[Capability.ARRIVAL]}",
            hint="--engine local",
        )
