"""Upkeep of tables: fewer files, the same rows, and nobody beside it notices."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from batch import maintain as upkeep
from batch import scan
from batch.append import Piece, append_once
from batch.catalog import load, open_catalog
from batch.maintain import MaintainReport, compact, expire, maintain, remove_orphans
from batch.offsets import offsets_of
from batch.scan import Scanner, local_path
from batch.settings import BatchSettings
from batch.sql import query
from batch.training import training_set
from features.plan import Definitions
from schemas.event import log_schema
from tests.unit.batch.conftest import START, Land, Order, asked, order

NOW = timedelta(0)


def land_in_small_files(land: Land, commits: int = 12) -> None:
    for number in range(commits):
        land(Order, [order("ab"[number % 2], number, 1.0 + number), order("c", number + 1_500, 0.5)])


def orders(settings: BatchSettings) -> Table:
    return load(open_catalog(settings), ("events", "orders"))


def files(table: Table) -> int:
    return len(list(table.refresh().scan().plan_files()))


def test_compaction_keeps_rows_offsets_and_old_snapshots(
    definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    land_in_small_files(land)
    table = orders(settings)
    before = query("SELECT * FROM events.orders ORDER BY kafka_offset", settings)
    offsets, pinned = offsets_of(table), table.current_snapshot()
    assert pinned is not None
    rows = asked(["a", "b", "c"], [2_000, 2_000, 2_000])
    trained = training_set(definitions, "plain", rows, settings)
    report = maintain(settings, definitions)
    # Two days of twelve files each.
    assert (report.files_before, report.files_after, files(table)) == (24, 2, 2)
    assert query("SELECT * FROM events.orders ORDER BY kafka_offset", settings) == before
    assert offsets_of(table.refresh()) == offsets
    assert training_set(definitions, "plain", rows, settings) == trained
    again = training_set(definitions, "plain", rows, settings, snapshots={"events.orders": pinned.snapshot_id})
    assert again == trained
    assert maintain(settings, definitions) == MaintainReport()


def test_the_lander_lands_on_while_tables_are_compacted(
    definitions: Definitions, settings: BatchSettings, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FILES_MIN", 2)
    land(Order, [order("a", 0, 0.0)])
    commits = 40

    def lander() -> None:
        table = load(open_catalog(settings), ("events", "orders"))
        for number in range(1, commits):
            row = order("a", number, float(number)) | {"kafka_partition": 0, "kafka_offset": number}
            rows = pa.Table.from_pylist([row | {"kafka_timestamp": START}], log_schema(Order.spec()))
            append_once(table, Piece("orders", "topic", rows, {0: number}, {0: number + 1}))

    thread = threading.Thread(target=lander)
    thread.start()
    done = MaintainReport()
    scanner = Scanner(settings)
    while thread.is_alive():
        compact(scanner, orders(settings), "kafka_offset", done)
    thread.join()
    scanner.close()
    amounts = query("SELECT amount FROM events.orders ORDER BY amount", settings)["amount"].to_pylist()
    assert amounts == [float(number) for number in range(commits)]
    assert offsets_of(orders(settings)).of("orders") == {0: commits}
    assert done.files_after >= 1


def test_two_compactions_at_once_leave_the_rows_once(settings: BatchSettings, land: Land) -> None:
    land_in_small_files(land)
    scanner = Scanner(settings)
    one, other = orders(settings), orders(settings)
    done = MaintainReport()
    small = [task.file for task in one.scan().plan_files()]
    made = list(upkeep._rewritten(scanner, one, list(one.scan().plan_files()), "kafka_offset"))
    compact(scanner, other, "kafka_offset", done)
    assert not upkeep._swap(one, small, made)
    assert query("SELECT count(*) AS n FROM events.orders", settings).to_pylist() == [{"n": 24}]
    scanner.close()


def test_snapshots_expire_but_for_the_newest_and_those_with_a_tag(settings: BatchSettings, land: Land) -> None:
    land_in_small_files(land, 5)
    table = orders(settings)
    kept = table.snapshots()[1].snapshot_id
    with table.manage_snapshots() as manage:
        manage.create_tag(kept, "manifest-x")
    done = MaintainReport()
    expire(table, timedelta(hours=1), done)
    assert done.snapshots_expired == 0
    expire(table, NOW, done)
    newest = table.refresh().current_snapshot()
    assert newest is not None
    assert {each.snapshot_id for each in table.snapshots()} == {kept, newest.snapshot_id}
    assert done.snapshots_expired == 3
    assert len(table.scan(snapshot_id=kept).to_arrow()) == 4


def test_orphans_go_and_nothing_else(settings: BatchSettings, land: Land) -> None:
    land_in_small_files(land)
    table = orders(settings)
    root = Path(local_path(table.location()) or "")
    (root / "data" / "orphan.parquet").write_bytes(b"x" * 10)
    done = MaintainReport()
    remove_orphans(table, timedelta(hours=1), done)
    assert done.orphans_deleted == 0
    remove_orphans(table, NOW, done)
    assert (done.orphans_deleted, done.bytes_freed) == (1, 10)
    scanner = Scanner(settings)
    compact(scanner, table, "kafka_offset", done)
    scanner.close()
    expire(table, NOW, done)
    remove_orphans(table, NOW, done)
    # The 24 small files, their manifests and lists are gone; what is left is what the newest snapshot names.
    assert len(list(root.rglob("*.parquet"))) == 2
    assert query("SELECT count(*) AS n FROM events.orders", settings).to_pylist() == [{"n": 24}]


def test_files_that_are_not_local_are_read_by_arrow(
    definitions: Definitions, settings: BatchSettings, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_in_small_files(land)
    rows = asked(["a", "b", "c"], [2_000, 2_000, 2_000])
    local = training_set(definitions, "plain", rows, settings)
    monkeypatch.setattr(scan, "local_paths", lambda tasks: None)
    assert training_set(definitions, "plain", rows, settings) == local
