"""`headrace train`: rows in, rows with features out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from batch.settings import BatchSettings
from batch.training import training_set
from headrace.settings import read_settings
from headrace.table_files import check_target, write_table
from headrace.terminal import print_json, say, working
from headrace.wiring import applied_definitions
from schemas.errors import RequestError


def run_train(
    service: str, rows: Path, out: Path, snapshots: Sequence[str], memory_limit: str | None, json: bool
) -> None:
    """Read, compute, write."""
    check_target(out)
    pinned = dict(_pinned(text) for text in snapshots)
    settings = read_settings(BatchSettings, memory_limit=memory_limit)
    definitions = applied_definitions(settings)
    started = time.monotonic()
    with working(f"computing the features of {service}"):
        table = training_set(definitions, service, rows, settings, snapshots=pinned)
        write_table(table, out)
    seconds = round(time.monotonic() - started, 2)
    if json:
        print_json({"rows": len(table), "columns": table.column_names, "out": str(out), "seconds": seconds})
    else:
        say(f"{len(table):,} rows, {len(table.column_names)} columns in {seconds} s: {out}")


def _pinned(text: str) -> tuple[str, int]:
    table, separator, snapshot = text.partition("=")
    if not separator or not table or not snapshot.isdigit():
        raise RequestError("--snapshot is TABLE=ID", got=repr(text), hint="write --snapshot events.flights=123")
    return table, int(snapshot)
