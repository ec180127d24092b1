"""Where a partition is read from, and for whom."""

from __future__ import annotations

import pytest

from features.plan import CellKind
from schemas.errors import DeliveryError
from schemas.row import Checkpoint, Position
from stream.checkpoint import Positions
from stream.placement import Placement, place_partition
from stream.topics import Range
from tests.unit.stream.model import make_plan

TOPIC_ID = bytes(range(16))
PLACE = ("events", 0)
BATCH = 100


def standing(*offsets: int | None) -> Positions:
    """A view whose shards stand at these offsets; None: no entry."""
    positions = Positions(make_plan([CellKind.COUNT], shards=len(offsets)), {"events": TOPIC_ID})
    positions.adopt(
        [None if at is None else Checkpoint(b"g" * 8, (Position(0, 0, TOPIC_ID, at, 1),)) for at in offsets]
    )
    return positions


def place(earliest: int, end: int, landed: int = 0, *, from_earliest: bool = False, **views: Positions) -> Placement:
    return place_partition(
        PLACE, views, Range(earliest, end), landed, batch_events_max=BATCH, from_earliest=from_earliest
    )


def test_a_fresh_project_begins_at_zero() -> None:
    assert place(0, 1_000, a=standing(None, None)) == Placement(0, ("a",), {})


def test_the_lowest_shard_says_where_to_begin() -> None:
    assert place(0, 1_000, a=standing(500, 450)) == Placement(450, ("a",), {})


def test_a_view_a_batch_behind_comes_along() -> None:
    assert place(0, 1_000, a=standing(500), b=standing(400)) == Placement(400, ("a", "b"), {})


def test_a_view_further_behind_is_brought_up_beside() -> None:
    assert place(0, 1_000, a=standing(500), b=standing(399)) == Placement(500, ("a",), {"b": 399})


def test_with_a_history_ahead_of_all_views_nobody_is_live_until_brought_up() -> None:
    assert place(0, 1_000, 800, a=standing(500)) == Placement(800, (), {"a": 500})


def test_a_history_a_batch_ahead_is_not_worth_it() -> None:
    assert place(0, 1_000, 600, a=standing(500)) == Placement(500, ("a",), {})


def test_what_kafka_deleted_comes_from_the_history() -> None:
    assert place(600, 1_000, 650, a=standing(500)) == Placement(650, (), {"a": 500})


def test_what_neither_has_is_refused() -> None:
    with pytest.raises(DeliveryError, match="no history holds them"):
        place(600, 1_000, 550, a=standing(500))


def test_only_a_view_without_any_state_may_begin_with_what_there_is() -> None:
    assert place(600, 1_000, from_earliest=True, a=standing(None)) == Placement(600, ("a",), {})
    with pytest.raises(DeliveryError):
        place(600, 1_000, from_earliest=True, a=standing(0, None))


@pytest.mark.parametrize("landed", [0, 1_200])
def test_nothing_stands_above_the_end(landed: int) -> None:
    with pytest.raises(DeliveryError, match="above the end"):
        place(0, 1_000, landed, a=standing(1_001 if not landed else 0))


def test_another_topic_under_the_old_name_is_refused() -> None:
    positions = standing(None)
    with pytest.raises(DeliveryError, match="made anew"):
        positions.adopt([Checkpoint(b"g" * 8, (Position(0, 0, bytes(16), 5, 1),))])
