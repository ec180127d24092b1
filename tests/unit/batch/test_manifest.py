"""The same call gives the same bytes again, whatever has landed since."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch import manifest as manifests
from batch.catalog import load, open_catalog
from batch.manifest import manifest_path, parse_pins, read_manifest, release, reproduce, write_training_set
from batch.settings import BatchSettings
from features.plan import Definitions
from schemas.errors import ConfigError, DataError
from tests.unit.batch.conftest import Land, Order, asked, order


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(asked(["a", "b", "a", None], [30, 31, 5, 9], label=[1, 2, 3, 4]), path)
    return path


def test_the_bytes_come_again_after_more_has_landed(
    definitions: Definitions,
    settings: BatchSettings,
    land: Land,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifests, "ROWS_MAX", 3)
    land(Order, [order("a", 0, 1.0), order("b", 1, 2.0)])
    out = tmp_path / "train.parquet"
    made = write_training_set(definitions, "plain", rows, out, settings)
    assert pq.read_table(out)["orders__amount_1h"].to_pylist() == [1.0, 2.0, 1.0, None]
    assert (made.row_count, list(made.snapshots)) == (4, ["events.orders"])
    assert read_manifest(manifest_path(out)) == made
    land(Order, [order("a", 2, 100.0)])
    again = reproduce(manifest_path(out), tmp_path / "again.parquet", settings)
    assert (again.equal, again.changed_code) == (True, {})
    other = write_training_set(definitions, "plain", rows, tmp_path / "other.parquet", settings)
    assert other.content_sha256 != made.content_sha256
    pinned = write_training_set(definitions, "plain", rows, out, settings, snapshots=made.snapshots)
    assert pinned.content_sha256 == made.content_sha256


def test_snapshots_are_kept_until_released(
    definitions: Definitions, settings: BatchSettings, land: Land, rows: Path, tmp_path: Path
) -> None:
    land(Order, [order("a", 0, 1.0)])
    out = tmp_path / "train.parquet"
    made = write_training_set(definitions, "plain", rows, out, settings)
    catalog = open_catalog(settings)
    assert load(catalog, ("events", "orders")).refs()[made.tag].snapshot_id == made.snapshots["events.orders"]
    release(manifest_path(out), settings)
    release(manifest_path(out), settings)
    assert made.tag not in load(catalog, ("events", "orders")).refs()


def test_other_rows_and_other_code_are_noticed(
    definitions: Definitions,
    settings: BatchSettings,
    land: Land,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    land(Order, [order("a", 0, 1.0)])
    out = tmp_path / "train.parquet"
    made = write_training_set(definitions, "plain", rows, out, settings)
    monkeypatch.setattr(manifests, "code_versions", lambda: made.code | {"duckdb": "9.9"})
    again = reproduce(manifest_path(out), tmp_path / "again.parquet", settings)
    assert again.changed_code == {"duckdb": (made.code["duckdb"], "9.9")}
    pq.write_table(asked(["b"], [1]), rows)
    with pytest.raises(DataError, match="not that of the manifest"):
        reproduce(manifest_path(out), tmp_path / "again.parquet", settings)


def test_pins(definitions: Definitions, settings: BatchSettings, rows: Path, tmp_path: Path) -> None:
    assert parse_pins(["events.a.b=12", "events.c=3"]) == {"events.a.b": 12, "events.c": 3}
    with pytest.raises(ConfigError, match="TABLE=ID"):
        parse_pins(["flights"])
    with pytest.raises(DataError, match=r"it reads events\.orders"):
        write_training_set(definitions, "plain", rows, tmp_path / "x.parquet", settings, snapshots={"events.visits": 1})
