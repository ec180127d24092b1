"""Views over Parquet files and other people's Iceberg tables, and latest values over them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.catalog import open_catalog
from batch.manifest import manifest_path, reproduce, write_training_set
from batch.settings import BatchSettings
from batch.training import training_set
from features import Count, Entity, FeatureService, FeatureView, LatestView, Sum
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.errors import DataError
from schemas.event import Event
from tests.unit.batch.conftest import START, asked


def rows(*values: tuple[str, float, int | None]) -> pa.Table:
    """(shop, minutes, seats)"""
    return pa.table(
        {
            "seats": pa.array([v[2] for v in values], pa.int32()),
            "shop": pa.array([v[0] for v in values], pa.string()),
            "since": pa.array([START + timedelta(minutes=v[1]) for v in values], pa.timestamp("us")),
        }
    )


DATA = (("a", 0, 10), ("a", 30, None), ("b", 5, 7), ("b", 5, 9), ("a", 60, 12))
"""Of the two rows of one instant the one that stands later is the newer."""


def declare(event: type[Event]) -> Definitions:
    shop = Entity("shop")
    facts = LatestView("facts", entity=shop, source=event, fields=["seats"], ttl="1h")
    sums = FeatureView("sums", entity=shop, source=event, features={"n": Count(), "seats": Sum("seats")})
    service = FeatureService("given", [facts, sums])
    return compile_definitions("test", [event, facts, sums, service])


def in_files(folder: Path) -> Definitions:
    folder.mkdir(exist_ok=True)
    pq.write_table(rows(*DATA[:2]), folder / "1.parquet")
    pq.write_table(rows(*DATA[2:]).select(["since", "shop", "seats"]), folder / "2.parquet")

    class Facts(Event, path=str(folder), time="since", key=["shop"]):
        since: datetime
        shop: str
        seats: int | None

    return declare(Facts)


def in_table(settings: BatchSettings) -> Definitions:
    catalog = open_catalog(settings)
    catalog.create_namespace_if_not_exists("lake")
    table = catalog.create_table(("lake", "facts"), rows().schema)
    table.append(rows(*DATA[:4]))
    table.append(rows(*DATA[4:]))

    class Facts(Event, table="lake.facts", time="since", key=["shop"]):
        since: datetime
        shop: str
        seats: int | None

    return declare(Facts)


@pytest.mark.parametrize("place", ["files", "table"])
@pytest.mark.parametrize("known_at", ["event", "arrival"])
def test_values_at_past_instants(place: str, known_at: str, settings: BatchSettings, tmp_path: Path) -> None:
    definitions = in_files(tmp_path / "facts") if place == "files" else in_table(settings)
    asks = asked(["a", "a", "a", "a", "b", "b", "c"], [10, 30, 31, 61, 65, 66, 9])
    got = training_set(definitions, "given", asks, settings, known_at=known_at)  # type: ignore[arg-type]
    # The newest row, its null included, if it is at most an hour old and before the instant.
    assert got["facts__seats"].to_pylist() == [10, 10, None, 12, 9, None, None]
    assert got["sums__n"].to_pylist() == [1, 1, 2, 3, 2, 2, 0]
    assert got["sums__seats"].to_pylist() == [10, 10, 10, 22, 16, 16, None]


@pytest.mark.parametrize("place", ["files", "table"])
def test_a_manifest_pins_them(place: str, settings: BatchSettings, tmp_path: Path) -> None:
    definitions = in_files(tmp_path / "facts") if place == "files" else in_table(settings)
    pq.write_table(asked(["a"], [61]), tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    made = write_training_set(definitions, "given", tmp_path / "rows.parquet", out, settings)
    assert reproduce(manifest_path(out), tmp_path / "again.parquet", settings).equal
    if place == "files":
        assert sorted(Path(file).name for file in made.files) == ["1.parquet", "2.parquet"]
        pq.write_table(rows(), tmp_path / "facts" / "1.parquet")
        with pytest.raises(DataError, match=r"1\.parquet: a file is not that of the manifest"):
            reproduce(manifest_path(out), tmp_path / "again.parquet", settings)
    else:
        assert list(made.snapshots) == ["lake.facts"]
        open_catalog(settings).load_table(("lake", "facts")).append(rows(("a", 1, 99)))
        assert reproduce(manifest_path(out), tmp_path / "again.parquet", settings).equal


def test_what_is_wrong_with_them(settings: BatchSettings, tmp_path: Path) -> None:
    class Missing(Event, path=str(tmp_path / "*.parquet"), time="since"):
        since: datetime
        shop: str
        seats: int

    with pytest.raises(DataError, match="no such files"):
        training_set(declare(Missing), "given", asked(["a"], [1]), settings)
    pq.write_table(rows(*DATA).drop_columns(["seats"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no 'seats'"):
        training_set(declare(Missing), "given", asked(["a"], [1]), settings)
    pq.write_table(rows(*DATA).set_column(0, "seats", pa.array(["1", "2", "3", "4", "5"])), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="declared as int64; got string"):
        training_set(declare(Missing), "given", asked(["a"], [1]), settings)

    class Nowhere(Event, table="lake.nothing", time="since"):
        since: datetime
        shop: str
        seats: int

    with pytest.raises(DataError, match="no such table"):
        training_set(declare(Nowhere), "given", asked(["a"], [1]), settings)
