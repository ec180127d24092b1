"""The rows of the training set: one a flight, at its scheduled departure."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

LATE_MIN = 15
"""A flight is late when it arrives more than this after its schedule: the line that the US authorities draw."""
FIRST_TEST_MONTH = 10


def training_rows(flights: pd.DataFrame) -> pa.Table:
    """Join keys, what a request brings along, the instant, what is known without any event, and the label.

    `late` is null for a flight that was cancelled or diverted. `at_gate`: it had not left by its scheduled departure;
    one that left early has, and the features of that instant know it.
    """
    unknown = flights.arr_delay_min.isna().to_numpy()
    return pa.table(
        {
            "event_timestamp": pa.array(flights.scheduled_at, pa.timestamp("us")),
            "origin": pa.array(flights.origin, pa.string()),
            "dest": pa.array(flights.dest, pa.string()),
            "carrier": pa.array(flights.carrier, pa.string()),
            "tailnum": pa.array(flights.tailnum, pa.string()),
            "distance_miles": pa.array(flights.distance_miles, pa.int64()),
            "month": pa.array(flights.month, pa.int64()),
            "weekday": pa.array(flights.weekday, pa.int64()),
            "minute": pa.array(flights.minute, pa.int64()),
            "minutes_planned": pa.array(flights.minutes_planned, pa.int64()),
            "at_gate": pa.array(~(flights.departed_at < flights.scheduled_at), pa.bool_()),
            "late": pa.array(flights.arr_delay_min > LATE_MIN, pa.bool_(), mask=unknown),
        }
    )
