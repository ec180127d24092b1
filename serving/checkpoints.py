"""What a server takes from a shard's checkpoint."""

from __future__ import annotations

from features.plan import ViewPlan
from schemas.errors import NotReady
from schemas.row import ENTRY, GENERATION_BYTES, NO_EVENT


def newest_of_checkpoint(checkpoint: bytes) -> int:
    """The newest event of all partitions below a checkpoint; NO_EVENT where there is none."""
    return max((entry[4] for entry in ENTRY.iter_unpack(checkpoint[GENERATION_BYTES:])), default=NO_EVENT)


def positions(checkpoint: bytes | None) -> list[tuple[int, int, int]]:
    """(source, partition, offset) of each entry of a checkpoint."""
    if checkpoint is None:
        return []
    return [(entry[0], entry[1], entry[3]) for entry in ENTRY.iter_unpack(checkpoint[GENERATION_BYTES:])]


def logged_positions(checkpoint: bytes | None) -> list[tuple[int, int, int] | tuple[int, int, int, str]]:
    """The same for the log of served vectors; of a table or of files also the hash that tells what was in them."""
    if checkpoint is None:
        return []
    entries = ENTRY.iter_unpack(checkpoint[GENERATION_BYTES:])
    return [
        (source, partition, offset, content.hex()) if partition < 0 else (source, partition, offset)
        for source, partition, content, offset, _ in entries
    ]


def not_ready(plan: ViewPlan) -> NotReady:
    """A shard of the view has no checkpoint: nobody knows what its entities' values are."""
    return NotReady(
        "a shard of the view has no checkpoint yet",
        where=plan.name,
        got=f"nothing under {plan.storage_id}",
        hint="is `headrace stream` running? It restores what Redis has lost; see `headrace status`",
    )
