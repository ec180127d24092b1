"""Training sets on Spark equal the local ones: every type, null keys, copies by id, derived views."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.settings import BatchSettings
from batch.training import training_set
from features.plan import Definitions
from tests.unit.batch.conftest import Land, Order, Visit, asked, order, visit
from tests.unit.batch.test_given import in_files, in_table

pytest.importorskip("pyspark", reason="pyspark is not installed; `make spark` installs it and runs this")
pytestmark = [pytest.mark.spark, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def spark() -> Any:
    from schemas.settings import ConnectionSettings
    from schemas.spark import session

    return session(ConnectionSettings())


def events(chance: random.Random, count: int) -> list[dict[str, Any]]:
    made = []
    for number in range(count):
        amount = None if chance.random() < 0.1 else chance.choice([0.1, 1e16, -1e16, chance.gauss(0, 1e3)])
        more = {"items": chance.randint(-(2**62), 2**62), "note": chance.choice([None, "ä", "b", ""])}
        again = f"o{chance.randint(0, number)}"
        more["order_id"] = again if chance.random() < 0.2 else f"o{number}"
        made.append(order(f"s{chance.randint(0, 30)}", chance.random() * 3_000, amount, partition=number % 2, **more))
    return made


def test_the_same_bits_as_the_local_engine(
    spark: Any, definitions: Definitions, settings: BatchSettings, land: Land
) -> None:
    from batch.spark import spark_training_set

    chance = random.Random(7)
    for _ in range(3):
        land(Order, events(chance, 400))
        land(
            Visit,
            [visit(f"s{chance.randint(0, 30)}", chance.randint(0, 2), chance.random() * 3_000) for _ in range(300)],
        )
    count = 500
    shops = [None if chance.random() < 0.05 else f"s{chance.randint(0, 35)}" for _ in range(count)]
    rows = asked(
        shops,
        [chance.random() * 3_500 for _ in range(count)],
        floor=pa.array([None if n % 17 == 0 else n % 3 for n in range(count)], pa.int64()),
        budget=[float(n % 5) for n in range(count)],
    )
    local = training_set(definitions, "shopping", rows, settings)
    distributed = spark_training_set(spark, definitions, "shopping", rows, settings)
    assert distributed.schema == local.schema
    # A deviation's last bits depend on which events are read together, on one machine as on many (both hold 1e-9).
    close = ["orders__spread_24h"]
    assert [name for name in local.column_names if not distributed[name].equals(local[name])] in ([], close)
    for one, other in zip(local[close[0]].to_pylist(), distributed[close[0]].to_pylist(), strict=True):
        assert (one is None) == (other is None)
        assert one is None or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    assert local["orders__amount_1h"].null_count < count


def test_nothing_landed_and_no_rows(spark: Any, definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    from batch.spark import spark_training_set

    rows = asked(["a", None], [1, 2])
    for given in (rows, rows.slice(0, 0)):
        local = training_set(definitions, "plain", given, settings)
        assert spark_training_set(spark, definitions, "plain", given, settings).equals(local)


def test_a_pinned_snapshot(spark: Any, definitions: Definitions, settings: BatchSettings, land: Land) -> None:
    from batch.catalog import load, open_catalog
    from batch.spark import spark_training_set

    land(Order, [order("a", 0, 1.0)])
    table = load(open_catalog(settings), ("events", "orders"))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    land(Order, [order("a", 1, 2.0)])
    rows = asked(["a"], [30])
    for pins, expected in (({"events.orders": snapshot.snapshot_id}, 1.0), ({}, 3.0)):
        got = spark_training_set(spark, definitions, "plain", rows, settings, snapshots=pins)
        assert got["orders__amount_1h"].to_pylist() == [expected]


@pytest.mark.parametrize("place", ["files", "table"])
def test_views_over_files_and_tables_that_are_no_event_log(
    place: str, spark: Any, settings: BatchSettings, tmp_path: Path
) -> None:
    from batch.spark import spark_training_set

    definitions = in_files(tmp_path / "facts") if place == "files" else in_table(settings)
    rows = asked(["a", "a", "a", "a", "b", "b", "c"], [10, 30, 31, 61, 65, 66, 9])
    local = training_set(definitions, "given", rows, settings)
    assert spark_training_set(spark, definitions, "given", rows, settings).equals(local)
    assert local["facts__seats"].to_pylist() == [10, 10, None, 12, 9, None, None]
