"""Training sets over a real warehouse: values, order, types and every way in which rows can be wrong."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch.catalog import load, open_catalog
from batch.settings import BatchSettings
from batch.training import training_set
from features.plan import Definitions
from schemas.errors import DataError, RequestError
from tests.unit.batch.conftest import START, Land, Order, Visit, asked, order, visit


def test_values_at_past_instants(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    # minutes  0---10---20----------75
    # a        2    3    (null)     5      asked at 20 (exclusive), 61, 80
    land(Order, [order("a", 0, 2.0, items=4), order("a", 10, 3.0, note="x"), order("a", 20, None, note="gone")])
    land(Order, [order("a", 75, 5.0), order("b", 5, 7.5)])
    rows = asked(["a", "a", "b", "a", "never", None], [10, 61, 61, 80, 61, 61])
    got = training_set(definitions, "plain", rows, settings).to_pylist()
    assert [row["orders__n_1h"] for row in got] == [1, 2, 1, 1, 0, None]
    assert [row["orders__amount_1h"] for row in got] == [2.0, 5.0, 7.5, 5.0, None, None]
    assert [row["orders__mean_24h"] for row in got] == [2.0, 2.5, 7.5, 10 / 3, None, None]
    assert [row["orders__max_items"] for row in got] == [4, 4, 1, 4, None, None]
    assert [row["orders__last_note"] for row in got] == [None, "x", None, "x", None, None]
    assert [row["orders__first_items"] for row in got] == [4, 4, 1, 4, None, None]
    assert got[3]["orders__spread_24h"] == pytest.approx(statistics.pstdev([2.0, 3.0, 5.0]))


def test_an_event_at_the_instant_is_out_and_one_at_the_start_is_in(
    definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    land(Order, [order("a", 0, 1.0), order("a", 60, 10.0)])
    rows = asked(["a", "a", "a"], [60, 64.9, 65])
    got = training_set(definitions, "plain", rows, settings)["orders__amount_1h"].to_pylist()
    assert got == [1.0, 11.0, 10.0]


def test_derived_views_composite_keys_and_request_columns(
    definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    land(Order, [order("a", 0, 6.0)])
    land(Visit, [visit("a", 1, 1), visit("a", 1, 2), visit("a", 2, 3), visit("b", 1, 4)])
    rows = asked(["a", "a", "b", "a"], [30, 30, 30, 30], floor=[1, 2, 1, None], budget=[12.0, 0.0, 1.0, 3.0])
    got = training_set(definitions, "shopping", rows, settings).to_pylist()
    assert [row["visits__n_1h"] for row in got] == [2, 1, 1, None]
    assert [row["ratio__per_visit"] for row in got] == [3.0, 6.0, None, None]
    # 6 / 0 is an infinity, hence null.
    assert [row["ratio__share"] for row in got] == [0.5, None, None, 2.0]


def test_order_and_extra_columns_are_kept(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.0), order("b", 0, 2.0)])
    rows = asked(["b", "a", "b", "a"], [9, 8, 7, 6], label=["w", "x", "y", "z"])
    got = training_set(definitions, "plain", rows, settings)
    assert got.column_names[:3] == ["shop", "event_timestamp", "label"]
    assert got.column_names[3:] == [f"orders__{each.name}" for each in definitions.views["orders"].features]
    assert got["label"].to_pylist() == ["w", "x", "y", "z"]
    assert got["orders__amount_1h"].to_pylist() == [2.0, 1.0, 2.0, 1.0]


def test_no_rows_and_no_events(definitions: Definitions, settings: BatchSettings) -> None:
    empty = training_set(definitions, "plain", asked([], []), settings)
    assert len(empty) == 0
    assert empty.schema.field("orders__amount_1h").type == pa.float64()
    got = training_set(definitions, "plain", asked(["a"], [5]), settings).to_pylist()
    assert (got[0]["orders__n_1h"], got[0]["orders__amount_1h"]) == (0, None)


def _parquet(rows: pa.Table, folder: Path) -> object:
    pq.write_table(rows, folder / "rows.parquet")
    return folder / "rows.parquet"


def _csv(rows: pa.Table, folder: Path) -> object:
    pyarrow.csv.write_csv(rows, folder / "rows.csv")
    return str(folder / "rows.csv")


def _pandas(rows: pa.Table, folder: Path) -> object:
    return rows.to_pandas()


def _pandas_with_zone(rows: pa.Table, folder: Path) -> object:
    frame = rows.to_pandas()
    frame["event_timestamp"] = frame["event_timestamp"].dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata")
    return frame


def _categories(rows: pa.Table, folder: Path) -> object:
    return rows.to_pandas().astype({"shop": "category"})


def _iso_text(rows: pa.Table, folder: Path) -> object:
    zone = timezone(timedelta(hours=2))
    texts = [value.replace(tzinfo=UTC).astimezone(zone).isoformat() for value in rows["event_timestamp"].to_pylist()]
    return rows.set_column(1, "event_timestamp", pa.array(texts))


@pytest.mark.parametrize("form", [_parquet, _csv, _pandas, _pandas_with_zone, _categories, _iso_text])
def test_rows_in_every_form(
    form: Callable[[pa.Table, Path], object],
    definitions: Definitions,
    settings: BatchSettings,
    land: Land,
    tmp_path: Path,
) -> None:
    land(Order, [order("a", 0, 1.0), order("a", 5, 2.0)])
    rows = form(asked(["a", "a"], [5, 6]), tmp_path)
    got = training_set(definitions, "plain", rows, settings)
    assert got["orders__amount_1h"].to_pylist() == [1.0, 3.0]


def test_nanoseconds_are_floored(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.0)])
    frame = pd.DataFrame({"shop": ["a"], "event_timestamp": [pd.Timestamp(START) + pd.Timedelta(1, "ns")]})
    assert training_set(definitions, "plain", frame, settings)["orders__n_1h"].to_pylist() == [0]


def _without(name: str) -> pa.Table:
    return asked(["a"], [1], floor=[1], budget=[1.0]).drop_columns([name])


def _with(name: str, values: list[object]) -> pa.Table:
    rows = asked(["a"], [1], floor=[1], budget=[1.0])
    position = rows.column_names.index(name)
    return rows.set_column(position, name, pa.array(values))


WRONG = {
    "no key": (_without("shop"), "'shop'"),
    "no request column": (_without("budget"), "'budget'"),
    "no instant": (_without("event_timestamp"), "no instants"),
    "a null instant": (_with("event_timestamp", [None]), "null in row 0"),
    "text for a number": (_with("floor", ["one"]), "of type int64"),
    "a number for text": (_with("shop", [1]), "of type string"),
    "a fraction for an integer": (_with("floor", [1.5]), "of type int64"),
    "no instants at all": (_with("event_timestamp", ["soon"]), "instants"),
    "a feature's name": (asked(["a"], [1], floor=[1], budget=[1.0], orders__n_1h=[3]), "named like features"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rows_are_explained(name: str, definitions: Definitions, settings: BatchSettings) -> None:
    rows, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        training_set(definitions, "shopping", rows, settings)


def test_unknown_service_and_unreadable_files(
    definitions: Definitions, settings: BatchSettings, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="there are: shopping, plain"):
        training_set(definitions, "shoping", asked(["a"], [1]), settings)
    with pytest.raises(DataError, match="can't be read"):
        training_set(definitions, "plain", tmp_path / "none.parquet", settings)
    with pytest.raises(DataError, match=r"\.parquet, \.csv"):
        training_set(definitions, "plain", tmp_path / "rows.xlsx", settings)


def test_copies_of_an_id_count_once(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    # By broker time: 0, 30 (copy), 80 (a copy of the copy, within the hour), 200 (too far: counts).
    land(
        Order,
        [
            order("a", 0, 1.0, order_id="x"),
            order("a", 1, 1.0, order_id="x", stored=START + timedelta(minutes=30)),
            order("a", 2, 1.0, order_id="x", stored=START + timedelta(minutes=80)),
            order("a", 3, 1.0, order_id="x", stored=START + timedelta(minutes=200)),
            order("a", 4, 1.0, order_id="x", partition=1),
            order("a", 5, 1.0),
            order("a", 6, 1.0),
        ],
    )
    got = training_set(definitions, "plain", asked(["a"], [30]), settings)
    assert got["orders__n_1h"].to_pylist() == [5]


def test_a_pinned_snapshot_answers_as_it_did(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    land(Order, [order("a", 0, 1.0)])
    snapshot = load(open_catalog(settings), ("events", "orders")).current_snapshot()
    assert snapshot is not None
    pinned = snapshot.snapshot_id
    land(Order, [order("a", 1, 5.0)])
    rows = asked(["a"], [30])
    assert training_set(definitions, "plain", rows, settings)["orders__amount_1h"].to_pylist() == [6.0]
    got = training_set(definitions, "plain", rows, settings, snapshots={"events.orders": pinned})
    assert got["orders__amount_1h"].to_pylist() == [1.0]
    with pytest.raises(DataError, match="no such snapshot"):
        training_set(definitions, "plain", rows, settings, snapshots={"events.orders": 7})


def test_what_had_arrived_by_then(definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    # event at   1    2    3 (min)
    # stored at  1    9    3     : partition 0 holds the first two, partition 1 the third
    late = START + timedelta(minutes=9)
    land(Order, [order("a", 1, 1.0), order("a", 2, 2.0, stored=late), order("a", 3, 4.0, partition=1)])
    rows = asked(["a", "a", "a", "b", None], [5, 9, 2, 5, 5])
    by_event = training_set(definitions, "plain", rows, settings)["orders__amount_1h"].to_pylist()
    by_arrival = training_set(definitions, "plain", rows, settings, known_at="arrival")["orders__amount_1h"].to_pylist()
    assert by_event == [7.0, 7.0, 1.0, None, None]
    assert by_arrival == [5.0, 7.0, 1.0, None, None]
