"""History from files: every form, what a schema refuses, and the same file twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch.catalog import load, open_catalog
from batch.history import IcebergHistory
from batch.imports import import_history
from batch.offsets import offsets_of
from batch.settings import BatchSettings
from batch.sql import query
from batch.training import training_set
from features.plan import Definitions
from schemas.errors import DataError
from tests.unit.batch.conftest import START, Land, Order, asked, order

EVENTS = {"Order": Order}


def rows(count: int = 5) -> pa.Table:
    return pa.table(
        {
            "at": pa.array([START + timedelta(minutes=n) for n in range(count)], pa.timestamp("us")),
            "shop": ["a"] * count,
            "order_id": pa.array([None] * count, pa.string()),
            "amount": [0.5 * n for n in range(count)],
            "items": list(range(count)),
            "note": [None if n % 2 else f"n{n}" for n in range(count)],
        }
    )


def parquet(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


def csv(table: pa.Table, folder: Path) -> Path:
    pyarrow.csv.write_csv(table, folder / "x.csv")
    return folder / "x.csv"


def json_array(table: pa.Table, folder: Path) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(table.to_pylist(), default=lambda value: value.isoformat()))
    return path


def json_lines(table: pa.Table, folder: Path) -> Path:
    path = folder / "x.jsonl"
    path.write_text("\n".join(json.dumps(row, default=lambda value: value.isoformat()) for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("form", [parquet, csv, json_array, json_lines])
def test_every_form(
    form: Callable[[pa.Table, Path], Path], definitions: Definitions, settings: BatchSettings, tmp_path: Path
) -> None:
    report = import_history(EVENTS, "Order", [form(rows(), tmp_path)], settings)
    assert (report.rows, report.rejections, report.known_before) == (5, [], [])
    got = query("SELECT * FROM events.orders ORDER BY kafka_offset", settings)
    assert got.select(rows().column_names).to_pylist() == rows().to_pylist()
    assert got["kafka_partition"].unique().to_pylist() == [-1]
    assert got["kafka_offset"].to_pylist() == list(range(5))
    assert got["kafka_timestamp"].to_pylist() == got["at"].to_pylist()


def test_the_same_bytes_are_imported_once(settings: BatchSettings, tmp_path: Path) -> None:
    first = parquet(rows(), tmp_path)
    import_history(EVENTS, "Order", [first], settings)
    other = tmp_path / "other.parquet"
    other.write_bytes(first.read_bytes())
    more = json_lines(rows(2), tmp_path)
    report = import_history(EVENTS, "Order", [first, other, more, more], settings)
    assert (report.rows, report.known_before) == (2, [first, other, more])
    table = load(open_catalog(settings), ("events", "orders"))
    assert offsets_of(table).of("orders") == {-1: 7}
    assert table.scan().count() == 7


def test_what_the_schema_refuses(settings: BatchSettings, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = {"at": "2024-03-01T00:00:00", "shop": "a", "order_id": None, "amount": 1.0, "items": 1, "note": None}
    broken = [good, good | {"items": "many"}, good | {"at": "2999-01-01T00:00:00"}, good]
    path.write_text("\n".join([*map(json.dumps, broken), "{"]))
    report = import_history(EVENTS, "Order", [path], settings)
    assert report.rows == 2
    assert [str(each.reason) for each in report.rejections] == ["wrong_type", "bad_time", "undecodable"]
    rejects = query("SELECT reason, kafka_partition, kafka_offset FROM rejects ORDER BY kafka_offset", settings)
    assert rejects["kafka_offset"].to_pylist() == [1, 2, 4]
    assert import_history(EVENTS, "Order", [path], settings).rows == 0
    assert query("SELECT count(*) AS n FROM rejects", settings).to_pylist() == [{"n": 3}]


def test_imported_history_counts_beside_the_log(
    definitions: Definitions, settings: BatchSettings, land: Land, tmp_path: Path
) -> None:
    import_history(EVENTS, "Order", [parquet(rows(), tmp_path)], settings)
    land(Order, [order("a", 4, 10.0), order("a", 6, 20.0)])
    got = training_set(definitions, "plain", asked(["a"], [30]), settings)
    assert got["orders__n_1h"].to_pylist() == [7]
    assert got["orders__amount_1h"].to_pylist() == [35.0]
    history = IcebergHistory(settings)
    assert history.offsets("orders") == {-1: 5, 0: 2}
    read = list(history.read("orders", {-1: 3}, {-1: 5, 0: 1}))
    assert [row["kafka_offset"] for table in read for row in table.to_pylist()] == [3, 4, 0]


def test_wrong_files_and_names(settings: BatchSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are: Order"):
        import_history(EVENTS, "Ordre", [], settings)
    with pytest.raises(DataError, match="can't be read"):
        import_history(EVENTS, "Order", [tmp_path / "none.parquet"], settings)
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="can't be read"):
        import_history(EVENTS, "Order", [tmp_path / "x.parquet"], settings)
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(DataError, match=r"\.parquet, \.csv"):
        import_history(EVENTS, "Order", [tmp_path / "x.txt"], settings)
