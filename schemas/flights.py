"""Flights out of New York: a departure and an arrival, each known when it really happened."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from schemas.event import Event

Miles = Annotated[int, Field(gt=0)]


class Flight(Event, topic="flights", time="departed_at", key=["origin"]):
    """One departure from a New York airport, known when it happened."""

    departed_at: datetime
    carrier: str
    flight: int
    origin: str
    dest: str
    tailnum: str | None
    distance_miles: Miles
    dep_delay_min: float | None


class Arrival(Event, topic="arrivals", time="arrived_at", key=["dest"]):
    """One arrival of a flight from New York. A flight that was diverted on its way arrives without a recorded delay."""

    arrived_at: datetime
    carrier: str
    flight: int
    origin: str
    dest: str
    tailnum: str | None
    distance_miles: Miles
    air_time_min: float | None
    arr_delay_min: float | None
