"""Micro-batches cut in two, and copies dropped."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Column, EventSpec
from schemas.row import NO_EVENT
from stream.batch import MicroBatch, Move
from stream.dedupe import Copies

EPOCH = datetime(1970, 1, 1)


def table(
    rows: list[tuple[int, int, int]], ids: list[str | None] | None = None, stamps: list[int] | None = None
) -> pa.Table:
    """Rows of (partition, offset, event time µs)."""
    return pa.table(
        {
            "t": pa.array([EPOCH + timedelta(microseconds=t) for _, _, t in rows], pa.timestamp("us")),
            "id": pa.array(ids or [None] * len(rows), pa.string()),
            "kafka_partition": pa.array([p for p, _, _ in rows], pa.int32()),
            "kafka_offset": pa.array([o for _, o, _ in rows], pa.int64()),
            "kafka_timestamp": pa.array(stamps or [0] * len(rows), pa.int64()).cast(pa.timestamp("us")),
        }
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100)), min_size=2, max_size=30))
def test_halves_are_the_whole(events: list[tuple[int, int]]) -> None:
    offsets = {0: 0, 1: 0, 2: 0}
    rows = []
    for partition, time in events:
        rows.append((partition, offsets[partition], time))
        offsets[partition] += 1
    moves = {
        ("a", p): Move(0, end + 1, NO_EVENT, max((t for q, _, t in rows if q == p), default=NO_EVENT))
        for p, end in offsets.items()
    }
    first, second = MicroBatch({"a": table(rows)}, moves).halves({"a": "t"})
    assert pa.concat_tables([first.tables["a"], second.tables["a"]]).equals(table(rows))
    for place, move in moves.items():
        one, two = first.moves[place], second.moves[place]
        assert (one.start, one.end, one.newest_us) == (move.start, two.start, two.newest_before_us)
        assert (two.end, two.newest_us) == (move.end, move.newest_us)
        for half, (start, end, _, newest) in ((first, one), (second, two)):
            mine = [
                (r["kafka_offset"], r["t"]) for r in half.tables["a"].to_pylist() if r["kafka_partition"] == place[1]
            ]
            assert all(start <= offset < end for offset, _ in mine)
            assert all((t - EPOCH) / timedelta(microseconds=1) <= newest for _, t in mine)


def spec(within_us: int) -> EventSpec:
    return EventSpec("E", "a", None, None, "t", (), (Column("id", "string", True),), "id", within_us, 0, "")


def dropped(rows: list[tuple[str | None, int]], within_us: int, cuts: int = 1) -> list[int]:
    """The rows (id, broker's timestamp) that are copies, in one partition, decoded in so many batches."""
    copies = Copies(spec(within_us))
    kept: set[int] = set()
    size = -(-len(rows) // cuts)
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        given_ = table([(0, at + n, 0) for n in range(len(part))], [i for i, _ in part], [t for _, t in part])
        kept |= set(copies.without_copies(given_)["kafka_offset"].to_pylist())
    return [n for n in range(len(rows)) if n not in kept]


def test_a_copy_within_the_time_is_dropped_and_counts_as_a_sighting() -> None:
    assert dropped([("a", 0), ("a", 10), ("a", 20), ("a", 31)], within_us=10) == [1, 2]


def test_null_ids_are_no_copies() -> None:
    assert dropped([(None, 0), (None, 0)], within_us=10) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 5))
def test_copies_are_a_function_of_the_log_alone(steps: list[tuple[str, int]], cuts: int) -> None:
    clock, rows = 0, []
    for identity, step in steps:
        clock += step
        rows.append((identity, clock))
    expected = [n for n, (identity, at) in enumerate(rows) if any(i == identity and at - t <= 7 for i, t in rows[:n])]
    assert dropped(rows, 7, cuts) == expected
