"""The knobs of serving. Every one is a bound; HEADRACE_… in the environment or headrace.toml sets it."""

from __future__ import annotations

from pydantic import Field

from schemas.settings import ConnectionSettings


class ServingSettings(ConnectionSettings):
    """What a server is told. A request beyond a bound is answered with what the bound is, and nothing is queued."""

    serve_host: str = "127.0.0.1"
    """Loopback: whoever reaches the port reads every feature, so opening it is a decision."""
    serve_port: int = Field(default=6566, ge=0, le=65535)
    """Feast's own."""
    serve_workers: int = Field(default=1, ge=1, le=256)
    serve_grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Where Feast's gRPC service is served as well; None: nowhere. Feast is imported for it, which takes seconds."""
    entities_max: int = Field(default=5_000, ge=1)
    """Entities of one request: 5,000 × 50 features are answered in about 50 ms, which all others wait."""
    features_max: int = Field(default=1_000, ge=1)
    values_max: int = Field(default=1_000_000, ge=1)
    """Entities × features of one request."""
    values_at_once_max: int = Field(default=1_000_000, ge=1)
    """Values of all reads that one worker has under way: about half a second's work. Beyond it: 503, Retry-After."""
    body_bytes_max: int = Field(default=4 << 20, ge=1)
    concurrency_max: int = Field(default=128, ge=1)
    """Reads of one worker at once; at 5,000 reads a second that is a queue of 25 ms. Beyond it: 503, Retry-After."""
    writes_max: int = Field(default=4, ge=1)
    """Pushes, writes and materialisations of one worker at once, each in a thread. Beyond it: 429, Retry-After."""
    redis_timeout_ms: int = Field(default=500, ge=1)
    """A Redis that is silent for longer is as good as down: 503."""
    definitions_poll_ms: int = Field(default=1_000, ge=10)
    """How soon a server takes up what `apply` has changed."""
    ready_lag_s: float = Field(default=0.0, ge=0)
    """/ready is false while a view's newest event is older than this; 0: any age will do."""
    served_buffer_max: int = Field(default=10_000, ge=1)
    """Vectors that wait to be logged; beyond it they are dropped and counted."""
    shutdown_s: float = Field(default=10.0, ge=0)
    """How long requests under way may take when the server is asked to stop."""

    @property
    def redis_timeout_s(self) -> float:
        """`redis_timeout_ms` in seconds."""
        return self.redis_timeout_ms / 1_000
