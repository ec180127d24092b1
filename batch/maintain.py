"""Upkeep of the tables: small files are compacted, old snapshots expire, files that nothing names are deleted.

Safe beside readers and the lander: a compaction swaps files in one commit that carries the offsets it stands on, and is
tried again where somebody committed in between; a snapshot expires only after a day, and a file that no snapshot names
is deleted only when it is older than any commit takes. Snapshots with a tag (a manifest's) stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.fs
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from batch.append import data_files
from batch.catalog import Identifier, load, open_catalog
from batch.offsets import OFFSETS, offsets_of
from batch.scan import OFFSET, PARTITION, Scanner, files_of
from batch.settings import BatchSettings
from batch.sql import identifiers
from batch.tables import REJECTS, arrow_columns
from features.expression import quote
from features.plan import Definitions

NAMESPACES = ("events", "served", "features", "verified")
SMALL_BYTES = 64 << 20
"""A file of Parquet below this is worth merging with others of its day."""
FILES_MIN = 4
"""Small files of one day that are left alone: rewriting a day for two files costs more than reading them does."""
ROWS_MAX = 4_000_000
"""Rows of a compacted file, more or less: some 100 MB."""

Report = Callable[[str], None]


@dataclass
class MaintainReport:
    """What was done, over all tables."""

    files_before: int = 0
    files_after: int = 0
    """Files that compactions took, and the ones they made of them."""
    snapshots_expired: int = 0
    orphans_deleted: int = 0
    bytes_freed: int = 0


def maintain(
    settings: BatchSettings, definitions: Definitions | None = None, report: Report = lambda _: None
) -> MaintainReport:
    """Upkeep of every table of the project; `definitions` tell by which instant an event log is sorted."""
    done = MaintainReport()
    scanner = Scanner(settings)
    try:
        for identifier in identifiers(open_catalog(settings)):
            if identifier[0] in NAMESPACES or identifier == REJECTS:
                table = load(scanner.catalog, identifier)
                compact(scanner, table, _order(identifier, table, definitions), done, report)
                expire(table, timedelta(hours=settings.keep_snapshots_hours), done, report)
                remove_orphans(table, timedelta(hours=settings.keep_orphans_hours), done, report)
        return done
    finally:
        scanner.close()


def compact(scanner: Scanner, table: Table, order: str, done: MaintainReport, report: Report = lambda _: None) -> None:
    """Rewrites each day that has many small files as few large ones, sorted; the table's rows stay the same."""
    for day, tasks in _days(table).items():
        small = [task for task in tasks if task.file.file_size_in_bytes < SMALL_BYTES and not task.delete_files]
        if len(small) <= FILES_MIN:
            continue
        made = list(_rewritten(scanner, table, small, order))
        if _swap(table, [task.file for task in small], made):
            done.files_before += len(small)
            done.files_after += len(made)
            report(f"{'.'.join(table.name())}: {len(small)} files of {day} became {len(made)}")


def expire(table: Table, keep: timedelta, done: MaintainReport, report: Report = lambda _: None) -> None:
    """Forgets snapshots older than `keep`, but for the newest one and those with a tag."""
    while True:
        table.refresh()
        before = len(table.snapshots())
        try:
            table.maintenance.expire_snapshots().older_than(datetime.now(UTC) - keep).commit()
        except CommitFailedException:
            continue
        break
    expired = before - len(table.refresh().snapshots())
    done.snapshots_expired += max(0, expired)
    if expired > 0:
        report(f"{'.'.join(table.name())}: {expired} snapshots expired")


def remove_orphans(table: Table, keep: timedelta, done: MaintainReport, report: Report = lambda _: None) -> None:
    """Deletes files below the table's folder that no snapshot names and that are older than `keep`.

    Younger ones may belong to a commit that is under way.
    """
    # The folder first: what is written after it was listed is not in the list.
    there = list(_files_below(table))
    table.refresh()
    named = _named(table)
    limit = datetime.now(UTC) - keep
    count = 0
    for info in there:
        if _path(info.path) not in named and info.mtime is not None and info.mtime < limit:
            _file_system(table)[0].delete_file(info.path)
            count += 1
            done.bytes_freed += info.size or 0
    done.orphans_deleted += count
    if count:
        report(f"{'.'.join(table.name())}: {count} files that nothing names were deleted")


def _days(table: Table) -> dict[str, list[FileScanTask]]:
    days: dict[str, list[FileScanTask]] = {}
    for task in table.scan().plan_files():
        days.setdefault(str(task.file.partition), []).append(task)
    return days


def _rewritten(scanner: Scanner, table: Table, tasks: list[FileScanTask], order: str) -> Iterator[DataFile]:
    source = scanner.files(table, arrow_columns(table), tasks)
    batches: list[pa.RecordBatch] = []
    rows = 0
    for batch in source.reader(f"SELECT * FROM files ORDER BY {order}"):
        batches.append(batch)
        rows += len(batch)
        if rows >= ROWS_MAX:
            yield from data_files(table, pa.Table.from_batches(batches))
            batches, rows = [], 0
    if batches:
        yield from data_files(table, pa.Table.from_batches(batches))


def _swap(table: Table, old: list[DataFile], new: list[DataFile]) -> bool:
    """Replaces files in one commit; False where another compaction has taken one of them."""
    while True:
        table.refresh()
        has_offsets = OFFSETS in _summary(table)
        summary = offsets_of(table).summary() if has_offsets else {}
        try:
            with table.transaction() as transaction:
                producer = transaction.update_snapshot(snapshot_properties=summary).overwrite()
                for file in old:
                    producer.delete_data_file(file)
                for file in new:
                    producer.append_data_file(file)
                producer.commit()
        except CommitFailedException:
            continue
        except ValidationException:
            return False
        return True


def _summary(table: Table) -> Mapping[str, str]:
    snapshot = table.current_snapshot()
    return {} if snapshot is None or snapshot.summary is None else snapshot.summary.additional_properties


def _order(identifier: Identifier, table: Table, definitions: Definitions | None) -> str:
    names = table.schema().column_names
    if identifier[0] == "events":
        times = (
            [spec.time for spec in definitions.events.values() if spec.topic == identifier[1]] if definitions else []
        )
        return ", ".join(map(quote, ["kafka_key", *times, PARTITION, OFFSET]))
    if OFFSET in names:
        return ", ".join(map(quote, [PARTITION, OFFSET]))
    return quote("instant" if "instant" in names else names[0])


def _named(table: Table) -> set[str]:
    """Every file that the table's metadata names."""
    named = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    manifests: set[str] = set()
    for snapshot in table.snapshots():
        named.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in manifests:
                manifests.add(manifest.manifest_path)
                named |= set(files_of(table, manifest))
    return {_path(location) for location in named | manifests}


def _files_below(table: Table) -> Iterator[pa.fs.FileInfo]:
    system, root = _file_system(table)
    selector = pa.fs.FileSelector(root, recursive=True, allow_not_found=True)
    yield from (info for info in system.get_file_info(selector) if info.type == pa.fs.FileType.File)


def _file_system(table: Table) -> tuple[pa.fs.FileSystem, str]:
    scheme, netloc, path = PyArrowFileIO.parse_location(table.location())
    io = table.io if isinstance(table.io, PyArrowFileIO) else PyArrowFileIO(table.io.properties)
    return io.fs_by_scheme(scheme, netloc), path


def _path(location: str) -> str:
    """A location as a file system names it: without scheme."""
    parsed = urlparse(location)
    return f"{parsed.netloc}{parsed.path}" if parsed.scheme else location
