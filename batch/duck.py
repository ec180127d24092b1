"""DuckDB for reading tables: one locked-down database, a cursor for each result that is being read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from batch.settings import BatchSettings
from schemas.errors import DataError

FILES_MAX_ROWS = 122_880
"""Rows of a batch that is handed on: a row group of DuckDB, some 20 MB."""


def connect(
    settings: BatchSettings,
    directories: Sequence[str | Path],
    *,
    threads: int | None = None,
    memory_limit: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """A database in memory: UTC, files are read below `directories` alone, nothing can be set or loaded.

    Beyond `memory_limit` it spills to the home's spill folder.
    """
    settings.spill.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads or settings.threads,
            "memory_limit": memory_limit or settings.memory_limit,
            "temp_directory": str(settings.spill.resolve()),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_directories = [{', '.join(literal(str(each)) for each in directories)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def literal(text: str) -> str:
    """A string constant of SQL."""
    return "'" + text.replace("'", "''") + "'"


def too_little_memory(error: duckdb.OutOfMemoryException) -> DataError:
    """The error for a step that doesn't fit, even spilled."""
    return DataError(
        "DuckDB's memory limit is too small for this step",
        got=str(error).split("\n", 1)[0],
        hint="raise HEADRACE_MEMORY_LIMIT",
    )
