"""Logged vectors whose type a replaced view changes: Iceberg keeps a column's type, so they get another name."""

from __future__ import annotations

from collections.abc import Callable

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from batch.catalog import find, open_catalog
from batch.settings import BatchSettings
from batch.tables import column_types, served_table
from features.plan import Definitions
from features.served import served_schema
from schemas.types import from_arrow


def set_aside(settings: BatchSettings, definitions: Definitions, report: Callable[[str], None]) -> None:
    """Renames what the definitions now declare with another type; its values stay, in `<name>__was_<type>`.

    Vectors in them carry the fingerprint of the old meaning, and are compared with nothing any more.
    """
    catalog = open_catalog(settings)
    for service in definitions.services.values():
        while (table := find(catalog, served_table(service.name))) is not None:
            names = _renamed(table, {f.name: from_arrow(f.type) for f in served_schema(definitions, service)})
            if not names:
                break
            try:
                # A schema change makes no snapshot: the newest one stays, and with it its offsets.
                with table.update_schema() as update:
                    for old, new in names.items():
                        update.rename_column(old, new)
            except CommitFailedException:
                continue
            report(f"table {'.'.join(table.name())}: {', '.join(f'{old} is now {new}' for old, new in names.items())}")


def _renamed(table: Table, wanted: dict[str, str]) -> dict[str, str]:
    known = column_types(table)
    names: dict[str, str] = {}
    for name, type_ in wanted.items():
        if known.get(name, type_) != type_:
            new = f"{name}__was_{''.join(c if c.isalnum() else '_' for c in known[name])}"
            while new in known:
                new += "_too"
            names[name] = new
    return names
