"""A training set in a file, and beside it a manifest from which the same bytes come again.

The manifest holds the definitions, the tables' snapshots (kept by a tag until `release`), the rows' hash, the code's
versions and the file's own hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException

from batch.catalog import find, load, open_catalog
from batch.given import given_files
from batch.rows import check_rows, instants_us, read_rows
from batch.scan import identifier_of, pin_of
from batch.settings import BatchSettings
from batch.training import KnownAt, service_plan, with_service
from features.plan import Definitions, ServicePlan
from schemas.errors import ConfigError, DataError
from schemas.event import EventSpec

SUFFIX = ".manifest.json"
ROWS_MAX = 4_000_000
"""Rows computed at once: what they and their features take of memory is bounded; more read the events again."""
CODE = ("headrace", "duckdb", "pyarrow", "numpy")
"""What decides a value's bits or the file's bytes."""

Progress = Callable[[int, int], None]
"""Rows done, rows in all."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What made a training set. `tag` keeps the snapshots; `content_sha256` is of the file's bytes."""

    service: str
    known_at: KnownAt
    rows: str
    rows_sha256: str
    snapshots: dict[str, int]
    files: dict[str, str]
    """Files of `path=` events with their hashes."""
    fingerprints: dict[str, str]
    code: dict[str, str]
    row_count: int
    content_sha256: str
    tag: str
    definitions: Definitions


class Reproduced(msgspec.Struct, frozen=True):
    """A training set made again: whether its bytes are the same, and if not which code is another."""

    equal: bool
    content_sha256: str
    changed_code: dict[str, tuple[str, str]]
    """package -> (then, now)"""


def write_training_set(
    definitions: Definitions,
    service: str,
    rows: Path,
    out: Path,
    settings: BatchSettings,
    *,
    known_at: KnownAt = "event",
    snapshots: Mapping[str, int] | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Manifest:
    """Writes the training set of a file of rows as Parquet, and its manifest beside it (`<out>.manifest.json`).

    Tables that `snapshots` doesn't name are read at their newest one. Raises DataError and RequestError as
    `training_set` does.
    """
    plan = service_plan(definitions, service)
    catalog = open_catalog(settings)
    pinned = _pinned(definitions, plan, catalog, snapshots or {})
    count = _write(definitions, plan, rows, out, settings, known_at, pinned, progress)
    content = sha256(out)
    manifest = Manifest(
        service=service,
        known_at=known_at,
        rows=str(rows.resolve()),
        rows_sha256=sha256(rows),
        snapshots=pinned,
        files=_given_hashes(definitions, plan),
        fingerprints={view: definitions.views[view].fingerprint for view in definitions.needed(plan)},
        code=code_versions(),
        row_count=count,
        content_sha256=content,
        tag=f"manifest-{content[:16]}",
        definitions=definitions,
    )
    _tag(catalog, manifest, kept=True)
    manifest_path(out).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return manifest


def reproduce(
    manifest: Path, out: Path, settings: BatchSettings, *, progress: Progress = lambda _done, _all: None
) -> Reproduced:
    """Makes a manifest's training set again and says whether the bytes agree.

    Raises DataError where the rows' file is another one by now, or a snapshot is gone.
    """
    made = read_manifest(manifest)
    rows = Path(made.rows)
    for file, then in {made.rows: made.rows_sha256, **made.files}.items():
        if (now := sha256(Path(file))) != then:
            raise DataError(
                "a file is not that of the manifest", where=file, got=f"sha256 {now[:16]}…", hint="restore it"
            )
    plan = service_plan(made.definitions, made.service)
    _write(made.definitions, plan, rows, out, settings, made.known_at, made.snapshots, progress)
    content = sha256(out)
    today = code_versions()
    changed = {name: (then, today[name]) for name, then in made.code.items() if today.get(name, "") != then}
    return Reproduced(content == made.content_sha256, content, changed)


def release(manifest: Path, settings: BatchSettings) -> None:
    """Lets go of a manifest's snapshots: `maintain` may expire them, and the training set can't be made again."""
    _tag(open_catalog(settings), read_manifest(manifest), kept=False)


def read_manifest(path: Path) -> Manifest:
    """Raises DataError for a file that is no manifest."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError("the manifest can't be read", where=str(path), got=str(error)) from error


def manifest_path(out: Path) -> Path:
    """Where the manifest of a training set lies."""
    return out.with_name(out.name + SUFFIX)


def code_versions() -> dict[str, str]:
    """The versions that decide a value's bits or the file's bytes."""
    return {name: version(name) for name in CODE}


def sha256(path: Path) -> str:
    """The hash of a file's bytes. Raises DataError where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError("the file can't be read", where=str(path), got=str(error)) from error


def parse_pins(pins: list[str]) -> dict[str, int]:
    """`--snapshot events.flights=123` as {table: snapshot}. Raises ConfigError for another form."""
    found = {}
    for pin in pins:
        match = re.fullmatch(r"([^=.]+\.[^=]+)=(\d+)", pin)
        if match is None:
            raise ConfigError("a snapshot is pinned as TABLE=ID", got=repr(pin), hint="--snapshot events.flights=123")
        found[match[1]] = int(match[2])
    return found


def _write(
    definitions: Definitions,
    plan: ServicePlan,
    rows: Path,
    out: Path,
    settings: BatchSettings,
    known_at: KnownAt,
    snapshots: Mapping[str, int],
    progress: Progress,
) -> int:
    given = check_rows(definitions, plan, read_rows(rows))
    instants = instants_us(given)
    scratch = out.with_name(f".{out.name}.part")
    writer: pq.ParquetWriter | None = None
    try:
        for start in _starts(len(given)):
            part = slice(start, start + ROWS_MAX)
            made = with_service(
                definitions,
                plan,
                given.slice(start, ROWS_MAX),
                instants[part],
                settings,
                known_at=known_at,
                marked=True,
                snapshots=snapshots,
            )
            writer = writer or pq.ParquetWriter(scratch, made.schema, compression="zstd")
            writer.write_table(made)
            progress(min(start + ROWS_MAX, len(given)), len(given))
    finally:
        if writer is not None:
            writer.close()
    scratch.replace(out)
    return len(given)


def _starts(count: int) -> Iterator[int]:
    yield from range(0, max(count, 1), ROWS_MAX)


def _specs(definitions: Definitions, plan: ServicePlan) -> list[EventSpec]:
    sources = [source for view in definitions.needed(plan) for source in definitions.views[view].sources]
    return list({source.event.name: source.event for source in sources}.values())


def _pinned(definitions: Definitions, plan: ServicePlan, catalog: Catalog, chosen: Mapping[str, int]) -> dict[str, int]:
    tables = {pin_of(spec): identifier_of(spec) for spec in _specs(definitions, plan) if spec.path is None}
    unknown = sorted(set(chosen) - set(tables))
    if unknown:
        raise DataError(
            "the service does not read such a table",
            where=plan.name,
            got=", ".join(unknown),
            hint=f"it reads {', '.join(sorted(tables))}",
        )
    pinned = dict(chosen)
    for name, identifier in sorted(tables.items()):
        table = find(catalog, identifier)
        snapshot = None if table is None else table.current_snapshot()
        if snapshot is not None:
            pinned.setdefault(name, snapshot.snapshot_id)
    return dict(sorted(pinned.items()))


def _given_hashes(definitions: Definitions, plan: ServicePlan) -> dict[str, str]:
    """The files of `path=` events, which no snapshot pins."""
    files = [file for spec in _specs(definitions, plan) if spec.path is not None for file in given_files(spec)]
    return {file: sha256(Path(file)) for file in files}


def _tag(catalog: Catalog, manifest: Manifest, *, kept: bool) -> None:
    """Makes every table have the manifest's tag, or not have it."""
    for name, snapshot_id in manifest.snapshots.items():
        namespace, _, table_name = name.partition(".")
        while True:
            table = load(catalog, (namespace, table_name))
            there = manifest.tag in table.refs()
            if there == kept:
                break
            try:
                with table.manage_snapshots() as manage:
                    if there:
                        manage.remove_tag(manifest.tag)
                    else:
                        manage.create_tag(snapshot_id, manifest.tag)
            except CommitFailedException:
                continue
