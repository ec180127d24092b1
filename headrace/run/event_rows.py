"""The event rows behind a served value, from the Iceberg event log: the end of the trail that `get --explain` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batch.duck import literal
from batch.sql import Session
from features.expression import quote
from features.plan import Source, ViewPlan
from schemas.errors import HeadraceError

ROWS_SHOWN = 5
"""The newest so many: enough to see what a value is made of."""


class EventRows:
    """Looks up rows; features of one view and window share an answer."""

    def __init__(self, session: Session, entity: Mapping[str, Any]) -> None:
        self._session = session
        self._entity = entity
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def behind(self, plan: ViewPlan, trail: Mapping[str, Any]) -> dict[str, Any]:
        """`landed`: how many of the value's events the log holds, `newest`: the last of them; or `trouble`.

        What is folded and not landed yet is missing: the log is seconds behind.
        """
        key = (plan.name, str(trail["window"]))
        if key not in self._known:
            try:
                self._known[key] = self._look(plan, trail)
            except HeadraceError as error:
                self._known[key] = {"trouble": str(error)}
        return self._known[key]

    def _look(self, plan: ViewPlan, trail: Mapping[str, Any]) -> dict[str, Any]:
        landed = 0
        newest: list[dict[str, Any]] = []
        for source in plan.sources:
            rows = f"({self._of_source(plan, source, trail)})"
            landed += self._session.query(f"SELECT count(*) AS n FROM {rows}")["n"][0].as_py()
            order = f"{quote(source.event.time)} DESC, kafka_partition, kafka_offset DESC"
            newest += self._session.query(f"SELECT * FROM {rows} ORDER BY {order} LIMIT {ROWS_SHOWN}").to_pylist()
        return {"landed": landed, "newest": newest}

    def _of_source(self, plan: ViewPlan, source: Source, trail: Mapping[str, Any]) -> str:
        """The entity's events in the window that lie below the offsets which were folded."""
        spec = source.event
        log = {quote(name) for name in (spec.time, "kafka_partition", "kafka_offset")}
        mapped = [f"{sql} AS {quote(name)}" for name, sql in source.mapping.items() if quote(name) not in log]
        columns = ", ".join([*mapped, *sorted(log)]) if source.mapping else "*"
        conditions = [f"{quote(key.name)} = {_literal(self._entity.get(key.name))}" for key in plan.keys]
        if plan.where is not None:
            conditions.append(f"({plan.where})")
        time, window = quote(spec.time), trail["window"]
        if window["start"] is not None:
            conditions.append(f"{time} >= {_instant(window['start'])}")
        conditions.append(f"{time} < {_instant(window['end'])}")
        below = [
            f"(kafka_partition = {each['partition']} AND kafka_offset < {each['offset']})"
            for each in trail["offsets"]
            if each["topic"] == spec.log_name
        ]
        conditions.append(f"({' OR '.join(below) or 'FALSE'})")
        table = f"{quote('events')}.{quote(spec.log_name)}"
        return f"SELECT * FROM (SELECT {columns} FROM {table}) WHERE {' AND '.join(conditions)}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    return "NULL" if value is None else literal(str(value))


def _instant(text: str) -> str:
    return f"TIMESTAMP {literal(text.removesuffix('Z'))}"
