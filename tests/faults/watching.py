"""What a fault's test looks at from outside: how far a worker has folded, and what it says of itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from tests.contract.stream.rig import Rig


def folded(rig: Rig) -> int:
    """Offsets that every shard has folded, over all partitions."""
    lowest: dict[int, int] = {}
    for shard in range(rig.view.shards):
        checkpoint = rig.checkpoint(shard)
        offsets = {} if checkpoint is None else {p.partition: p.offset for p in checkpoint.positions}
        for partition in range(4):
            offset = offsets.get(partition, 0)
            lowest[partition] = min(lowest.get(partition, offset), offset)
    return sum(lowest.values())


def ask(address: str, path: str) -> tuple[int, dict[str, object]]:
    """The status and the JSON of a worker's /ready or /health."""
    try:
        with urllib.request.urlopen(address + path, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
