"""What a verification found: as a report, and as tables.

verified.<service>   one row a value that differs
verified.runs        one row a run
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import orjson
import pyarrow as pa

from batch.append import append_rows
from batch.catalog import open_catalog
from batch.settings import BatchSettings
from batch.tables import ensure_table

EXAMPLES_MAX = 100
"""Differing values that a report names; the table has them all."""


class Cause(StrEnum):
    """Why a value differs."""

    DEFECT = "defect"
    """The served value is not what the events below its checkpoints give: headrace is wrong."""
    DEFINITION = "definition"
    """The view has another meaning by now, or its table or files other rows: the value was not compared."""
    LAG = "lag"
    """An event that had arrived before the vector was logged was not folded yet."""
    LATE = "late"
    """An event arrived after the vector was logged."""


@dataclass(frozen=True)
class Difference:
    """One value that differs: from the exact computation (a defect), or from what is known by now."""

    cause: Cause
    feature: str
    partition: int
    offset: int
    instant: datetime
    keys: dict[str, object]
    served: object
    computed: object


@dataclass
class VerifyReport:
    """What `verify` found. Vectors are counted once each; `by_cause` counts values."""

    service: str
    compared: int = 0
    equal: int = 0
    """Vectors with every value equal to the exact computation: bit for bit, but for `within_tolerance`."""
    pending: int = 0
    """Vectors read from offsets that haven't landed yet; run the lander, then verify again."""
    known_now_equal: int = 0
    """Vectors whose every value is also what everything that is known by now gives."""
    by_cause: dict[str, int] = field(default_factory=dict)
    within_tolerance: list[str] = field(default_factory=list)
    """Features that are compared within 1e-9 and not to the bit."""
    examples: list[Difference] = field(default_factory=list)

    @property
    def defects(self) -> int:
        """Values that are not what the events below their checkpoints give."""
        return self.by_cause.get(Cause.DEFECT, 0)


DIFFERENCES_SCHEMA = pa.schema(
    [
        pa.field("verified_at", pa.timestamp("us"), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("feature", pa.string(), nullable=False),
        pa.field("instant", pa.timestamp("us"), nullable=False),
        pa.field("keys", pa.string(), nullable=False),
        pa.field("served", pa.string()),
        pa.field("computed", pa.string()),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
    ]
)
"""Keys and values are JSON."""

RUNS_SCHEMA = pa.schema(
    [
        pa.field("verified_at", pa.timestamp("us"), nullable=False),
        pa.field("service", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("compared", "equal", "known_now_equal", "pending")),
        *(pa.field(f"values_{cause}", pa.int64(), nullable=False) for cause in Cause),
    ]
)


def write_result(settings: BatchSettings, report: VerifyReport, differences: list[Difference]) -> None:
    """Appends a run and what it found."""
    at = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        {
            "verified_at": at,
            "cause": each.cause.value,
            "feature": each.feature,
            "instant": each.instant,
            "keys": _json(each.keys),
            "served": None if each.served is None else _json(each.served),
            "computed": None if each.computed is None else _json(each.computed),
            "kafka_partition": each.partition,
            "kafka_offset": each.offset,
        }
        for each in differences
    ]
    run = {
        "verified_at": at,
        "service": report.service,
        "compared": report.compared,
        "equal": report.equal,
        "known_now_equal": report.known_now_equal,
        "pending": report.pending,
    } | {f"values_{cause}": report.by_cause.get(cause, 0) for cause in Cause}
    _append(settings, report.service, pa.Table.from_pylist(rows, DIFFERENCES_SCHEMA))
    _append(settings, "runs", pa.Table.from_pylist([run], RUNS_SCHEMA))


def _append(settings: BatchSettings, name: str, rows: pa.Table) -> None:
    append_rows(ensure_table(open_catalog(settings), ("verified", name), rows.schema, "verified_at"), rows)


def _json(value: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
