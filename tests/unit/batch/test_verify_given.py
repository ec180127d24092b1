"""The proof of vectors that rest on files: compared while these are what was folded, and never afterwards."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch.append import Piece, append_once
from batch.catalog import open_catalog
from batch.given_log import GivenLog
from batch.offsets import IMPORTED
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, ensure_table, served_table
from batch.verified import Cause
from batch.verify import verify
from features import Entity, FeatureService, LatestView
from features.planner import compile_definitions
from features.served import served_schema
from schemas.event import Event

SINCE = datetime(2024, 3, 1)


def write(file: Path, areas: list[float]) -> None:
    rows = [{"since": SINCE, "shop": f"s{n}", "area": area} for n, area in enumerate(areas)]
    schema = pa.schema([("since", pa.timestamp("us")), ("shop", pa.string()), ("area", pa.float64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), file)


def test_vectors_over_files_are_compared_while_the_files_are_the_same(tmp_path: Path, settings: BatchSettings) -> None:
    file = tmp_path / "shops.parquet"
    write(file, [10.0, 20.0])

    class Shop(Event, path=str(file), time="since", key=["shop"]):
        since: datetime
        shop: str
        area: float

    facts = LatestView("facts", entity=Entity("shop"), source=Shop, fields=["area"])
    definitions = compile_definitions("test", [Shop, facts, FeatureService("facts_only", [facts])])
    log = GivenLog(settings, Shop.spec())
    entry: list[Any] = [0, IMPORTED, log.offsets()[IMPORTED], log.identity.hex()]
    rows = [
        {
            "shop": shop,
            "facts__area": area,
            "instant": SINCE + timedelta(days=1),
            "fingerprints": json.dumps({"facts": definitions.views["facts"].fingerprint}),
            "checkpoints": json.dumps({"facts": [entry]}),
            "kafka_partition": 0,
            "kafka_offset": offset,
            "kafka_timestamp": SINCE + timedelta(days=1),
        }
        for offset, (shop, area) in enumerate([("s0", 10.0), ("s1", 21.0), ("s9", None)])
    ]
    schema = served_schema(definitions, definitions.services["facts_only"])
    table = ensure_table(open_catalog(settings), served_table("facts_only"), schema, BROKER_TIME)
    append_once(table, Piece("served.facts_only", "t", pa.Table.from_pylist(rows, schema), {}, {0: len(rows)}))

    report = verify(definitions, "facts_only", settings)
    assert (report.compared, report.equal, report.pending, report.by_cause) == (3, 2, 0, {Cause.DEFECT: 1})
    write(file, [11.0, 21.0])
    report = verify(definitions, "facts_only", settings)
    assert (report.compared, report.pending, report.by_cause) == (0, 0, {Cause.DEFINITION: 3})
