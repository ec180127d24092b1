"""Whether every shard of every view can be read, and how old what is read would be."""

from __future__ import annotations

import time

from features.plan import Definitions
from schemas.duration import format_duration
from schemas.row import NO_EVENT, checkpoint_redis_key
from serving.checkpoints import newest_of_checkpoint
from serving.connection import AsyncRedis
from serving.resp import PING, command


async def not_ready_reasons(redis: AsyncRedis, definitions: Definitions, lag_max_s: float) -> list[str]:
    """Why a true answer can't be given for some view; empty: all can. Raises NotReady where Redis is away."""
    await redis.ask(PING, 1)
    reasons = []
    for plan in definitions.views.values():
        keys = [checkpoint_redis_key(plan.storage_id, shard) for shard in range(plan.shards)]
        checkpoints = (await redis.ask(command(b"MGET", *keys), 1))[0]
        missing = sum(checkpoint is None for checkpoint in checkpoints)
        if missing:
            reasons.append(f"{plan.name}: {missing} of {plan.shards} shards have no checkpoint yet")
        elif lag_max_s and plan.follows_a_topic:
            newest = max(newest_of_checkpoint(checkpoint) for checkpoint in checkpoints)
            age_us = time.time_ns() // 1_000 - newest
            if newest == NO_EVENT or age_us > lag_max_s * 1e6:
                age = "unknown" if newest == NO_EVENT else format_duration(age_us // 1_000 * 1_000)
                reasons.append(f"{plan.name}: the newest event is {age} old, the bound is {lag_max_s:g} s")
    return reasons
