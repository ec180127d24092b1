"""The Iceberg catalog: PyIceberg's own settings, or SQLite and a warehouse folder in HEADRACE_HOME."""

from __future__ import annotations

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
    home.mkdir(parents=True, exist_ok=True)
    return SqlCatalog(
        settings.catalog,
        uri=f"sqlite:///{home / 'catalog.db'}?timeout={SQLITE_WAIT_S}",
        warehouse=f"file://{home / 'warehouse'}",
    )


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
