"""`headrace train`: rows in, rows with features out; and a manifest's training set once more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
import typer

from batch.capabilities import check_engine
from batch.manifest import manifest_path, parse_pins, release, reproduce, write_training_set
from batch.settings import BatchSettings
from batch.training import training_set
from features.plan import Definitions
from headrace.run.table_files import check_target, write_table
from headrace.settings import read_settings
from headrace.terminal.output import counting, print_json, say
from headrace.wiring import evaluable_definitions, event_types_of
from schemas.errors import ConfigError, RequestError

PARQUET = ".parquet"


@dataclass(frozen=True)
class Wanted:
    """What a training set is made of."""

    service: str
    rows: Path
    out: Path
    known_at: Literal["event", "arrival"]
    snapshots: list[str]
    memory_limit: str | None
    engine: Literal["local", "spark"] = "local"


def run_train(wanted: Wanted, json: bool) -> None:
    """Read, compute, write. Only Parquet has a manifest: other formats' bytes say too little of the values."""
    check_target(wanted.out)
    if not wanted.rows.is_file():
        raise RequestError("there is no such file of rows", got=str(wanted.rows), hint="name a Parquet, CSV or Arrow")
    check_engine(wanted.engine, wanted.known_at)
    pins = parse_pins(wanted.snapshots)
    settings = read_settings(BatchSettings, memory_limit=wanted.memory_limit)
    definitions = evaluable_definitions(settings)
    started = time.monotonic()
    with counting(f"computing the features of {wanted.service}") as count:
        if wanted.engine == "spark":
            table = _on_spark(wanted, definitions, settings, pins)
            write_table(table, wanted.out)
            rows, manifest = len(table), None
        elif wanted.out.suffix == PARQUET:
            made = write_training_set(
                definitions,
                wanted.service,
                wanted.rows,
                wanted.out,
                settings,
                known_at=wanted.known_at,
                snapshots=pins,
                progress=lambda done, _: count(done, ""),
            )
            rows, manifest = made.row_count, str(manifest_path(wanted.out))
        else:
            table = training_set(
                definitions, wanted.service, wanted.rows, settings, known_at=wanted.known_at, snapshots=pins
            )
            write_table(table, wanted.out)
            rows, manifest = len(table), None
    seconds = round(time.monotonic() - started, 2)
    if json:
        print_json({"rows": rows, "out": str(wanted.out), "manifest": manifest, "seconds": seconds})
    else:
        say(f"{rows:,} rows in {seconds} s: {wanted.out}{f', made again by --manifest {manifest}' if manifest else ''}")


def _on_spark(wanted: Wanted, definitions: Definitions, settings: BatchSettings, pins: dict[str, int]) -> pa.Table:
    """The same values by many machines: no manifest, and what was true at each instant alone."""
    try:
        from batch.spark import spark_training_set
        from schemas.spark import session
    except ImportError as error:
        raise ConfigError(
            "Spark is not installed", got=str(error), hint="run `make spark`, or: pip install 'headrace[batch,spark]'"
        ) from None
    return spark_training_set(
        session(settings),
        definitions,
        wanted.service,
        wanted.rows,
        settings,
        snapshots=pins,
        prepare=partial(event_types_of, settings.definitions.absolute()),
    )


def run_again(manifest: Path, out: Path | None, memory_limit: str | None, json: bool) -> None:
    """Make it again, into `out` or for the comparison alone; exit code 1 where the bytes differ."""
    settings = read_settings(BatchSettings, memory_limit=memory_limit)
    evaluable_definitions(settings)
    if out is not None:
        check_target(out)
    with TemporaryDirectory() as scratch, counting(f"making {manifest.name} again") as count:
        made = reproduce(
            manifest,
            out or Path(scratch) / f"again{PARQUET}",
            settings,
            progress=lambda done, _: count(done, ""),
        )
    if json:
        print_json({"equal": made.equal, "content_sha256": made.content_sha256, "changed_code": made.changed_code})
    elif made.equal:
        say("the same bytes")
    else:
        changed = ", ".join(f"{name} {then} -> {now}" for name, (then, now) in made.changed_code.items())
        say(f"other bytes; {f'another code made them: {changed}' if changed else 'the code is the same'}")
    if not made.equal:
        raise typer.Exit(1)


def run_release(manifest: Path, json: bool) -> None:
    """Let go of the snapshots that a manifest keeps."""
    release(manifest, read_settings(BatchSettings))
    if json:
        print_json({"released": str(manifest)})
    else:
        say(f"{manifest} keeps no snapshots any more: `headrace maintain` may expire them")
