"""The worker's knobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.settings import ConnectionSettings


class StreamSettings(ConnectionSettings):
    """Settings of `headrace stream`, each as HEADRACE_<NAME> or in headrace.toml."""

    batch_events_max: Annotated[int, Field(ge=1)] = 65_536
    """Events a micro-batch: the more, the fewer deltas each; a fold of so many takes some 0.25 s of Redis."""
    fetch_buffer_kib: Annotated[int, Field(ge=64)] = 65_536
    """What the Kafka client may hold in memory beyond the micro-batches at work."""
    session_timeout_ms: Annotated[int, Field(ge=1_000)] = 10_000
    """After this long without a sign of life a worker's partitions go to another one."""
    poll_interval_max_ms: Annotated[int, Field(ge=1_000)] = 300_000
    """A worker that has not polled for this long has hung; its partitions go to another one."""
    advance_every_s: Annotated[float, Field(gt=0)] = 1.0
    """How often checkpoints of shards without events are moved: it bounds what a restart reads again."""
    redis_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """A script call takes milliseconds; no answer for this long means that there will be none."""
    retry_max_s: Annotated[float, Field(gt=0)] = 5.0
    """The longest pause between two attempts to reach a service that is down."""
    topic_check_every_s: Annotated[float, Field(gt=0)] = 5.0
    """How often a running worker asks whether its topics are still the ones it began with."""
    rejects_share_max: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Beyond this share of rejected messages over a minute the worker stops: that is a broken producer."""
    rejects_min: Annotated[int, Field(ge=1)] = 20
    """Fewer rejected messages than this within the minute stop no worker, whatever their share."""
    from_earliest: bool = False
    """Whether a view without any state may begin with the oldest event of Kafka where older ones are gone."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Where /metrics, /health and /ready are served; None: nowhere; 0: on a free port."""
