"""State in Redis that is to go: of a view that is folded anew, and of one that another has replaced."""

from __future__ import annotations

from itertools import islice

import redis

from features.plan import ViewPlan
from schemas.errors import NotReady
from schemas.row import checkpoint_redis_key
from stream.settings import StreamSettings
from stream.wire import open_client

SCAN_COUNT = 1_000
"""Keys a step: about a millisecond of Redis's time."""


class Forget:
    """One connection to Redis. Raises NotReady where it does not answer."""

    def __init__(self, settings: StreamSettings) -> None:
        self._client = open_client(settings)

    def __enter__(self) -> Forget:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def checkpoints(self, plan: ViewPlan) -> None:
        """Make the view as good as never folded: rows of a generation without a checkpoint are absent for everybody.

        The rows themselves are overwritten one by one as the view is folded anew.
        """
        keys = [checkpoint_redis_key(plan.storage_id, shard) for shard in range(plan.shards)]
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.unlink(key)
                pipeline.execute()
        except redis.RedisError as error:
            raise _away(error) from error

    def state(self, storage_id: str) -> int:
        """Delete everything that is kept under the storage id; the number of keys."""
        try:
            found = self._client.scan_iter(match=f"h{{{storage_id}.*", count=SCAN_COUNT)
            return sum(self._unlink(keys) for keys in iter(lambda: list(islice(found, SCAN_COUNT)), []))
        except redis.RedisError as error:
            raise _away(error) from error

    def _unlink(self, keys: list[bytes]) -> int:
        # One command a key: in a Cluster the keys of a step lie in different slots.
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.unlink(key)
            return sum(pipeline.execute())


def _away(error: redis.RedisError) -> NotReady:
    return NotReady("Redis does not serve", got=str(error), hint="see `headrace status`, then run it again")
