"""Views over tables and files in the online store: folded once, anew when they change, equal to training sets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch import scan
from batch.catalog import open_catalog
from batch.history import IcebergHistory
from batch.settings import BatchSettings
from batch.training import training_set
from features.plan import Definitions
from features.view_plan import with_project
from headrace.settings import settings_for
from schemas.errors import NotReady
from schemas.event import Event
from serving.cluster import open_redis
from serving.read import Reader
from stream.given import fold_given
from stream.settings import StreamSettings
from tests.unit.batch.test_given import in_files, in_table, rows

SHOPS = ["a", "b", "c"]


class World:
    def __init__(self, kafka: str, redis_url: str, project: str, home: Path) -> None:
        self.settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=project, home=home)
        self.batch = settings_for(BatchSettings, self.settings)

    def fold(self, definitions: Definitions) -> list[str]:
        class Facts(Event, path="declared as the definitions have it", time="since", key=["shop"]):
            since: datetime
            shop: str
            seats: int | None

        (spec,) = definitions.events.values()
        Facts.__event_spec__ = spec
        history = IcebergHistory(self.batch, definitions)
        return fold_given(definitions, {"Facts": Facts}, self.settings, history, threading.Event())

    def online(self, definitions: Definitions) -> list[dict[str, object]]:
        reader = Reader(open_redis(self.settings.redis_address(), timeout_s=10), definitions)
        try:
            vectors = reader.read(["sums:n", "sums:seats"], {"shop": SHOPS})
        finally:
            reader.close()
        columns = [values.to_list() for values in vectors.columns]
        return [dict(zip(("sums__n", "sums__seats"), row, strict=True)) for row in zip(*columns, strict=True)]

    def offline(self, definitions: Definitions) -> list[dict[str, object]]:
        asked = pa.table({"shop": SHOPS, "event_timestamp": [datetime(2030, 1, 1)] * len(SHOPS)})
        return training_set(definitions, "given", asked, self.batch).select(["sums__n", "sums__seats"]).to_pylist()


@pytest.fixture
def world(kafka: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> World:
    return World(kafka, redis_url, unique("p"), tmp_path / "home")


@pytest.mark.parametrize("place", ["files", "table", pytest.param("a table elsewhere", marks=pytest.mark.slow)])
def test_folded_once_and_anew_when_they_change(
    place: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "a table elsewhere":
        # What DuckDB can't open by itself comes through PyIceberg.
        monkeypatch.setattr(scan, "local_paths", lambda tasks: None)
    definitions = in_files(tmp_path / "facts") if place == "files" else in_table(world.batch)
    definitions = _in_project(definitions, world.settings.project)
    with pytest.raises(NotReady):
        world.online(definitions)
    assert world.fold(definitions) == ["facts", "sums"]
    assert world.fold(definitions) == []
    assert [row["sums__n"] for row in world.online(definitions)] == [3, 2, 0]
    assert world.online(definitions) == world.offline(definitions)
    more = rows(("a", 90, 1), ("c", 90, None))
    if place == "files":
        # By its name it stands in front of the others: what was folded up to an offset says nothing any more.
        pq.write_table(more, tmp_path / "facts" / "0.parquet")
    else:
        open_catalog(world.batch).load_table(("lake", "facts")).append(more)
    assert world.fold(definitions) == ["facts", "sums"]
    assert [row["sums__n"] for row in world.online(definitions)] == [4, 2, 1]
    assert world.online(definitions) == world.offline(definitions)


@pytest.mark.slow
def test_rows_deleted_from_a_table_are_gone_everywhere(world: World) -> None:
    definitions = _in_project(in_table(world.batch), world.settings.project)
    world.fold(definitions)
    open_catalog(world.batch).load_table(("lake", "facts")).delete("shop = 'a'")
    assert world.fold(definitions) == ["facts", "sums"]
    assert [row["sums__n"] for row in world.online(definitions)] == [0, 2, 0]
    assert world.online(definitions) == world.offline(definitions)


def _in_project(definitions: Definitions, project: str) -> Definitions:
    """The same under a name that no other test's rows are kept under."""
    views = {name: with_project(plan, project) for name, plan in definitions.views.items()}
    return msgspec.structs.replace(definitions, project=project, views=views)
