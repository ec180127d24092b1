"""The demo's data: instants as they really were, messages in the order in which things became known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import orjson
import pandas as pd
import pytest

from headrace.demo.broken import BREAKAGES
from headrace.demo.nycflights import data_folder, read_flights
from headrace.demo.rows import training_rows
from headrace.demo.timeline import EVENTS, Message, Timeline, timeline
from schemas.decode import Batch, Decoder

FLIGHTS = 336_776
CANCELLED = 8_255
NEVER_ARRIVED = 8_713
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return read_flights()


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return pd.read_csv(data_folder() / "flights.csv.zip")


@pytest.fixture(scope="module")
def few() -> Timeline:
    return timeline(read_flights(share=1 / 31), broken_of_each=20)


def test_every_flight_is_there_and_every_one_that_happened_has_its_instant(flights: pd.DataFrame) -> None:
    assert len(flights) == FLIGHTS
    assert flights.departed_at.notna().sum() == FLIGHTS - CANCELLED
    assert flights.arrived_at.notna().sum() == FLIGHTS - NEVER_ARRIVED


def test_the_schedule_is_the_hour_that_the_data_set_gives_in_utc(flights: pd.DataFrame, raw: pd.DataFrame) -> None:
    hour = pd.to_datetime(raw.time_hour).dt.tz_localize(None)
    assert (flights.scheduled_at == hour + pd.to_timedelta(raw.minute, "min")).all()


def test_clocks_at_both_ends_show_what_was_written_down(flights: pd.DataFrame, raw: pd.DataFrame) -> None:
    zones = pd.read_csv(data_folder() / "airports.csv").set_index("faa").tzone
    zone = raw.dest.map(zones).fillna("America/Puerto_Rico")
    assert set(raw.dest[raw.dest.map(zones).isna()]) == {"BQN", "SJU", "STT", "PSE"}
    otherwise = []
    for name, rows in raw.index[flights.arrived_at.notna()].groupby(zone[flights.arrived_at.notna()]).items():
        shown = flights.arrived_at[rows].dt.tz_localize("UTC").dt.tz_convert(name).dt
        clock = shown.hour * 100 + shown.minute
        otherwise += clock[clock != raw.arr_time[rows] % 2400].tolist()
    # One arrival is written down as 2:03 on the night when clocks went from 2 to 3.
    assert otherwise == [303]
    left = flights.departed_at.notna()
    shown = flights.departed_at[left].dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt
    assert (shown.hour * 100 + shown.minute == raw.dep_time[left] % 2400).all()


def test_nobody_arrives_before_flying_there_or_a_day_late(flights: pd.DataFrame) -> None:
    on_the_ground = flights.arrived_at - flights.departed_at - pd.to_timedelta(flights.air_time_min, "min")
    assert on_the_ground.min() >= pd.Timedelta(minutes=5)
    assert on_the_ground.max() <= pd.Timedelta(hours=4)


def test_a_delay_is_the_difference_to_the_schedule_across_midnight_and_summer_time(
    flights: pd.DataFrame, raw: pd.DataFrame
) -> None:
    """arrival − delay shows the scheduled arrival on the destination's clocks."""
    zones = pd.read_csv(data_folder() / "airports.csv").set_index("faa").tzone
    zone = raw.dest.map(zones).fillna("America/Puerto_Rico")
    planned = flights.arrived_at - pd.to_timedelta(flights.arr_delay_min, "min")
    wrong = 0
    for name, rows in raw.index[planned.notna()].groupby(zone[planned.notna()]).items():
        shown = planned[rows].dt.tz_localize("UTC").dt.tz_convert(name).dt
        wrong += int((shown.hour * 100 + shown.minute != raw.sched_arr_time[rows] % 2400).sum())
    assert wrong == 0
    assert (flights.arrived_at.dt.normalize() - flights.departed_at.dt.normalize()).max() >= DAY


def test_messages_come_as_things_became_known(few: Timeline) -> None:
    specs = few.specs
    known = [
        orjson.loads(message.value)[specs[message.topic].time]
        for slice_ in few.slices()
        for message in slice_
        if message.breakage is None
    ]
    assert len(known) == sum(few.good.values())
    assert all(earlier <= later for earlier, later in pairwise(known))


def test_each_broken_message_is_refused_for_its_reason_and_every_good_one_is_taken(few: Timeline) -> None:
    counts: Counter[str] = Counter()
    for event in EVENTS:
        topic = str(event.spec().topic)
        messages = [message for slice_ in few.slices() for message in slice_ if message.topic == topic]
        decoded = Decoder(event).decode(Batch.of(topic, [_Sent(m, at) for at, m in enumerate(messages)]))
        broken = {at: message for at, message in enumerate(messages) if message.breakage}
        assert {each.offset for each in decoded.rejections} == set(broken)
        for each in decoded.rejections:
            breakage = broken[each.offset].breakage
            assert breakage is not None
            assert (each.reason, each.value) == (breakage.reason, broken[each.offset].value)
            counts[breakage.name] += 1
        assert decoded.table.num_rows == few.good[topic]
    assert counts == {breakage.name: 20 for breakage in BREAKAGES}


def test_a_training_row_is_a_flight_at_its_scheduled_departure(flights: pd.DataFrame) -> None:
    rows = training_rows(flights)
    assert rows.num_rows == FLIGHTS
    assert rows["event_timestamp"].to_pylist()[:1] == [pd.Timestamp("2013-01-01T10:15:00")]
    # Neither cancelled nor diverted flights have a label, and 0 is not 'late by 15'.
    assert rows["late"].null_count == 9_430
    late = flights.arr_delay_min > 15
    assert sum(filter(None, rows["late"].to_pylist())) == late.sum()


@dataclass(frozen=True)
class _Sent:
    """A message as Kafka hands it out."""

    message: Message
    at: int

    def value(self) -> bytes:
        return self.message.value

    def key(self) -> bytes:
        return self.message.key

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_700_000_000_000

    def headers(self) -> None:
        return None
