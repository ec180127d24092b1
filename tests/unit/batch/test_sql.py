"""SQL over the tables: what it answers, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.catalog import load, open_catalog
from batch.settings import BatchSettings
from batch.sql import Session, query
from batch.tables import ensure_tables
from features.plan import Definitions
from schemas.errors import RequestError
from tests.unit.batch.conftest import Land, Order, order


def test_tables_by_name_empty_ones_included(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    ensure_tables(settings, definitions, lambda _: None)
    land(Order, [order("a", 0, 1.5), order("b", 1, 2.5)])
    names = ["events.orders", "events.visits", "rejects", "served.plain", "served.shopping"]
    assert Session(settings).tables() == names
    answer = query("SELECT shop, sum(amount) AS total FROM events.orders GROUP BY shop ORDER BY shop", settings)
    assert answer.to_pylist() == [{"shop": "a", "total": 1.5}, {"shop": "b", "total": 2.5}]
    assert query("SELECT reason, count(*) FROM rejects GROUP BY 1", settings).num_rows == 0
    assert query("SELECT orders__n_1h FROM served.plain", settings).num_rows == 0


def test_columns_added_later_are_null_in_older_files(
    definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    land(Order, [order("a", 0, 1.5)])
    table = load(open_catalog(settings), ("events", "orders"))
    with table.update_schema() as update:
        from pyiceberg.types import DoubleType

        update.add_column("tip", DoubleType())
    land(Order, [order("b", 0, 1.5)])
    assert query("SELECT shop, tip FROM events.orders ORDER BY shop", settings).to_pylist() == [
        {"shop": "a", "tip": None},
        {"shop": "b", "tip": None},
    ]


REFUSED = {
    "a write": "COPY (SELECT 1) TO '{home}/warehouse/events/orders/x.parquet'",
    "a table": "CREATE TABLE x AS SELECT 1",
    "two statements": "SELECT 1; SELECT 2",
    "a setting": "SET threads = 1",
    "an attachment": "ATTACH '{home}/x.db'",
    "nothing": "",
    "another file": "SELECT * FROM read_text('/etc/hostname')",
    "an unknown table": "SELECT * FROM events.ordres",
    "nonsense": "SELEKT 1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_query_may_not_do(name: str, settings: BatchSettings, land: Land, tmp_path: Path) -> None:
    land(Order, [order("a", 0, 1.5)])
    with pytest.raises(RequestError):
        query(REFUSED[name].format(home=settings.home.resolve()), settings)


def test_a_refused_query_names_the_tables(settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.5)])
    with pytest.raises(RequestError, match=r"tables are: events\.orders"):
        query("SELECT * FROM events.ordres", settings)
