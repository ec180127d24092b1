"""Batch's own settings, beside what every package shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from schemas.settings import ConnectionSettings


class BatchSettings(ConnectionSettings):
    """Where the Iceberg tables are and what batch work may take of the machine.

    `catalog` names a catalog of PyIceberg's own settings (`.pyiceberg.yaml` or PYICEBERG_CATALOG__<NAME>__…); where
    those know none of that name, the tables live in HEADRACE_HOME.
    """

    catalog: str = "headrace"
    memory_limit: str = "2GiB"
    """What DuckDB may hold before it spills to HOME/spill."""
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    land_seconds: float = Field(default=5.0, gt=0)
    """How long landed events may wait for company: an Iceberg commit costs some 50 ms and two small files."""
    land_rows_max: int = Field(default=250_000, ge=1)
    """Messages of one topic in memory before they are committed: 100 MB at 400 bytes each."""
    land_bytes_max: int = Field(default=128 << 20, ge=1 << 20)
    """The same in bytes of messages."""
    maintain_seconds: float = Field(default=3_600.0, gt=0)
    """How often a lander that runs on looks after its tables in its idle time."""
    keep_snapshots_hours: float = Field(default=24.0, ge=1)
    """How long a snapshot without a tag stays: longer than any query or training set reads."""
    keep_orphans_hours: float = Field(default=24.0, ge=1)
    """How long a file that no snapshot names stays: longer than any commit takes."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Where a lander serves /metrics, /health and /ready; None: nowhere; 0: on a free port."""

    @property
    def spill(self) -> Path:
        """Where DuckDB spills what exceeds `memory_limit`."""
        return self.home / "spill"
