"""Events of `table=` and `path=` as a worker folds them: a log of one partition, that of imported history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from batch.catalog import load
from batch.given import FILE_SHIFT, given_files
from batch.offsets import IMPORTED
from batch.scan import Scanner, identifier_of
from batch.settings import BatchSettings
from schemas.event import EventSpec, log_schema

IDENTITY_BYTES = 16


class GivenLog:
    """One event type's table or files, as they are when this is made."""

    def __init__(self, settings: BatchSettings, spec: EventSpec) -> None:
        self._settings = settings
        self._spec = spec
        self._snapshot: int | None = None
        scanner = Scanner(settings)
        try:
            if spec.path is not None:
                files = given_files(spec)
                self._count = len(files)
                self.identity = hashlib.md5("\n".join(map(_stamp, files)).encode(), usedforsecurity=False).digest()
            else:
                table = load(scanner.catalog, identifier_of(spec))
                snapshot = table.current_snapshot()
                self._count = 0 if snapshot is None else len(list(table.scan().plan_files()))
                self._snapshot = None if snapshot is None else snapshot.snapshot_id
                self.identity = (self._snapshot or 0).to_bytes(IDENTITY_BYTES, "little")
        finally:
            scanner.close()

    def offsets(self) -> Mapping[int, int]:
        """{IMPORTED: offset}: behind the last file's last row."""
        return {IMPORTED: self._count * FILE_SHIFT}

    def read(self, start: int) -> Iterator[pa.Table]:
        """The rows from an offset on, in `log_schema`, by ascending offset."""
        scanner = Scanner(self._settings)
        try:
            reader = scanner.given_log(self._spec, self._snapshot, start)
            for batch in reader or ():
                yield pa.Table.from_batches([batch]).cast(log_schema(self._spec))
        finally:
            scanner.close()


def _stamp(file: str) -> str:
    """A file's name and what tells that it was written anew."""
    found = Path(file).stat()
    return f"{file} {found.st_size} {found.st_mtime_ns}"
