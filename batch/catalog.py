"""The Iceberg catalog: PyIceberg's own settings, or SQLite and a warehouse folder in HEADRACE_HOME."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.utils.config import Config

from batch.settings import BatchSettings
from schemas.errors import DataError

Identifier = tuple[str, str]

SQLITE_WAIT_S = 30
"""How long a commit waits for another process's: SQLite's own 5 s are short beside a slow disk."""


def open_catalog(settings: BatchSettings) -> Catalog:
    """The catalog that holds all tables of the project."""
    if Config().get_catalog_config(settings.catalog) is not None:
        return load_catalog(settings.catalog)
    home = settings.home.resolve()
    # SqlCatalog looks for its tables and then creates them: two processes that start at once would both try.
    with one_at_a_time(settings):
        return SqlCatalog(
            settings.catalog,
            uri=f"sqlite:///{home / 'catalog.db'}?timeout={SQLITE_WAIT_S}",
            warehouse=f"file://{home / 'warehouse'}",
        )


@contextmanager
def one_at_a_time(settings: BatchSettings) -> Iterator[None]:
    """Lets one process (and thread) of this home through; the lock dies with its holder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "catalog.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load(catalog: Catalog, identifier: Identifier) -> Table:
    """The table. Raises DataError where there is none."""
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        raise DataError("there is no such table", got=".".join(identifier), hint="run headrace apply") from None


def find(catalog: Catalog, identifier: Identifier) -> Table | None:
    """The table; None where there is none."""
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        return None
