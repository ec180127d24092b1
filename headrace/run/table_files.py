"""Arrow tables as files, by the ending of the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from schemas.errors import RequestError


def check_target(file: Path) -> None:
    """Raises RequestError where a table can't be written there, before any work is done."""
    if file.suffix not in _WRITERS:
        raise RequestError(
            "the ending of the file says its format", got=str(file), hint=f"end it in {', '.join(_WRITERS)}"
        )
    if not file.absolute().parent.is_dir():
        raise RequestError("the folder of the file isn't there", got=str(file.absolute().parent), hint="make it")


def write_table(table: pa.Table, file: Path) -> None:
    """All of it, or nothing: a file that is there is whole."""
    scratch = file.with_name(f".{file.name}.new")
    try:
        _WRITERS[file.suffix](table, scratch)
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def _write_arrow(table: pa.Table, file: Path) -> None:
    pyarrow.feather.write_feather(table, str(file), compression="zstd")


def _write_csv(table: pa.Table, file: Path) -> None:
    pyarrow.csv.write_csv(table, str(file))


def _write_parquet(table: pa.Table, file: Path) -> None:
    pyarrow.parquet.write_table(table, str(file), compression="zstd")


_WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".arrow": _write_arrow,
    ".feather": _write_arrow,
}
