"""One piece of batch work in a process of its own, so that its time and memory are its own.

`python batch_work.py WORK HOME` prints JSON: seconds, peak resident bytes, and a digest of the answer.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.append import Piece, append_once
from batch.catalog import load, open_catalog
from batch.scan import local_paths
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, ensure_table, events_table
from batch.training import training_set
from features import Count, Entity, FeatureService, FeatureView, Last, Max, Mean, Min, Sum
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event, log_schema

EPOCH_US = 1_704_067_200_000_000
DAY_US = 86_400_000_000
DAYS = 30
USERS = 100_000
WINDOWS = {"1h": (3_600_000_000, 300_000_000), "24h": (DAY_US, 3_600_000_000), "7d": (7 * DAY_US, 3_600_000_000)}
"""Size and hop: the hops are the default ones."""


class Payment(Event, topic="payments", time="at", key=["user"]):
    """A payment of a user."""

    at: datetime
    user: str
    amount: float


def definitions() -> Definitions:
    features = {}
    for over in WINDOWS:
        features |= {
            f"sum_{over}": Sum("amount", over=over),
            f"count_{over}": Count("amount", over=over),
            f"mean_{over}": Mean("amount", over=over),
            f"min_{over}": Min("amount", over=over),
            f"max_{over}": Max("amount", over=over),
            f"last_{over}": Last("amount", over=over),
        }
    view = FeatureView("payments", entity=Entity("user"), source=Payment, features=features)
    return compile_definitions("bench", [Payment, view, FeatureService("risk", [view])])


def make(settings: BatchSettings, events: int, rows: int) -> None:
    """An event log in commits of 2.5 million, sorted by time as Kafka's is, and rows that ask about it."""
    chance = np.random.default_rng(1)
    users = pa.array([f"user{number:06d}" for number in range(USERS)])
    times = np.sort(chance.integers(0, DAYS * DAY_US, events)) + EPOCH_US
    schema = log_schema(Payment.spec())
    table = ensure_table(open_catalog(settings), events_table("payments"), schema, BROKER_TIME)
    for start in range(0, events, 2_500_000):
        at = times[start : start + 2_500_000]
        count = len(at)
        columns = {
            "at": pa.array(at).cast(pa.timestamp("us")),
            "user": users.take(pa.array(chance.integers(0, USERS, count))),
            "amount": np.round(chance.normal(50, 20, count), 2),
            "kafka_partition": np.zeros(count, np.int32),
            "kafka_offset": np.arange(start, start + count),
            "kafka_timestamp": pa.array(at // 1000 * 1000).cast(pa.timestamp("us")),
            "kafka_key": pa.nulls(count, pa.binary()),
        }
        append_once(table, Piece("payments", "t", pa.table(columns).cast(schema), {}, {0: start + count}))
    instants = chance.integers(7 * DAY_US, DAYS * DAY_US, rows) + EPOCH_US
    asked = {
        "user": users.take(pa.array(chance.integers(0, USERS, rows))),
        "event_timestamp": pa.array(instants).cast(pa.timestamp("us")),
    }
    pq.write_table(pa.table(asked), settings.home / "rows.parquet")


def ours(settings: BatchSettings) -> pa.Table:
    return training_set(definitions(), "risk", settings.home / "rows.parquet", settings)


def by_hand(settings: BatchSettings) -> pa.Table:
    """What a careful person writes: events and rows in one relation, a window frame a window, bounds by row."""
    tasks = list(load(open_catalog(settings), events_table("payments")).scan().plan_files())
    paths = local_paths(tasks)
    frames = ", ".join(
        f"w{name} AS (PARTITION BY user ORDER BY t RANGE BETWEEN t - (t - {size}) // {hop} * {hop} PRECEDING"
        " AND 1 PRECEDING)"
        for name, (size, hop) in WINDOWS.items()
    )
    values = ", ".join(
        f"sum(x) OVER w{n} AS sum_{n}, count(x) OVER w{n} AS count_{n}, avg(x) OVER w{n} AS mean_{n},"
        f" min(x) OVER w{n} AS min_{n}, max(x) OVER w{n} AS max_{n}, last_value(x IGNORE NULLS) OVER w{n} AS last_{n}"
        for n in WINDOWS
    )
    database = duckdb.connect(config={"threads": settings.threads, "temp_directory": str(settings.spill)})
    return database.sql(
        f"""
        WITH both_ AS (
            SELECT user, epoch_us("at") AS t, amount AS x, -1 AS asked FROM read_parquet({paths})
            UNION ALL
            SELECT user, epoch_us(event_timestamp), NULL, row_number() OVER () FROM '{settings.home}/rows.parquet')
        SELECT * EXCLUDE (asked, t, x, user) FROM (SELECT *, {values} FROM both_ WINDOW {frames}) WHERE asked >= 0
        ORDER BY asked"""
    ).to_arrow_table()


WORK: dict[str, Callable[[BatchSettings], pa.Table]] = {"ours": ours, "by_hand": by_hand}


def digest(table: pa.Table) -> dict[str, object]:
    """Sums of every feature's values: counts, minima and maxima to the bit, sums nearly."""
    short = {name.removeprefix("payments__"): name for name in table.column_names if "_" in name}
    return {name: pc.sum(table[column]).as_py() for name, column in short.items() if column != "event_timestamp"}


def main(work: str, home: str) -> None:
    settings = BatchSettings(home=Path(home))
    start = time.perf_counter()
    answer = WORK[work](settings)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "bytes": peak, "digest": digest(answer)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
