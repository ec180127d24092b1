"""Batch's own settings, beside what every package shares."""

from __future__ import annotations

import os
from pathlib import Path

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

    @property
    def spill(self) -> Path:
        """Where DuckDB spills what exceeds `memory_limit`."""
        return self.home / "spill"
