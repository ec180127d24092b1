"""`headrace rejects`: the table of rejects, for people."""

from __future__ import annotations

import json as json_module
from base64 import b64decode, b64encode
from typing import Any

import pyarrow as pa

from batch.duck import literal
from batch.settings import BatchSettings
from batch.sql import Session
from headrace.settings import read_settings
from headrace.terminal.output import out, print_json, print_table, say
from schemas.errors import NotReady, RequestError
from schemas.rejection import Reason

COUNTS = (
    "SELECT topic, reason, count(*) AS count, max(kafka_timestamp) AS newest FROM rejects GROUP BY ALL ORDER BY ALL"
)
SHOWN = ("topic", "kafka_partition", "kafka_offset", "kafka_timestamp", "reason", "path", "detail")
CELL_MAX = 100


def run_counts() -> None:
    """How many there are, by topic and reason."""
    counts = _ask(COUNTS)
    if counts:
        print_table(list(counts[0]), [list(row.values()) for row in counts], right=["count"])
    else:
        say("nothing has been rejected, as far as the lander has come")


def run_list(topic: str | None, reason: str | None, limit: int, json: bool) -> None:
    """The newest ones."""
    order = "ORDER BY kafka_timestamp DESC, topic, kafka_partition, kafka_offset DESC"
    rows = _ask(f"SELECT * FROM rejects {condition(topic, reason)} {order} LIMIT {limit}")
    if json:
        print_json([_encoded(row) for row in rows])
    elif rows:
        print_table(SHOWN, [[_cell(row[column]) for column in SHOWN] for row in rows])
    else:
        say("there is no such reject; `headrace rejects` counts them by topic and reason")


def condition(topic: str | None, reason: str | None) -> str:
    """The WHERE for those of a topic, of a reason, of both, or for all. Raises RequestError for an unknown reason."""
    if reason is not None and reason not in list(Reason):
        raise RequestError("no such reason", got=repr(reason), hint=f"there are: {', '.join(Reason)}")
    wanted = {"topic": topic, "reason": reason}
    conditions = [f"{name} = {literal(value)}" for name, value in wanted.items() if value is not None]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def run_show(topic: str, partition: int, offset: int, json: bool) -> None:
    """One, whole. Raises RequestError where there is none."""
    where = f"topic = {literal(topic)} AND kafka_partition = {partition} AND kafka_offset = {offset}"
    rows = _ask(f"SELECT * FROM rejects WHERE {where}")
    if not rows:
        raise RequestError(
            "there is no such reject",
            got=f"{topic} {partition} {offset}",
            hint="`headrace rejects list` names topic, partition and offset; `headrace land` brings new ones",
        )
    if json:
        print_json(_encoded(rows[0]))
        return
    for name, value in rows[0].items():
        if name not in ("value", "headers") and value not in (None, ""):
            out().print(f"{name}: {_text(value)}")
    for name, content in json_module.loads(rows[0]["headers"]):
        out().print(f"header {name}: {'none' if content is None else _text(b64decode(content))}")
    value = rows[0]["value"]
    out().print(f"value: {'none' if value is None else f'{len(value)} bytes'}")
    if value is not None:
        out().print(_text(value))


def ask(text: str) -> pa.Table:
    """The answer to a query over `rejects`. Raises NotReady where there is no such table yet."""
    session = Session(read_settings(BatchSettings))
    if "rejects" not in session.tables():
        raise NotReady("there is no table of rejects yet", hint="run `headrace apply`")
    return session.query(text)


def _ask(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ask(text).to_pylist()
    return rows


def _encoded(value: Any) -> Any:
    """For JSON: bytes that are text as text, others as {"base64": …}; so that none is changed on the way."""
    if isinstance(value, dict):
        return {name: _encoded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(each) for each in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value).replace("\n", " ")
    return f"{text[:CELL_MAX]}…" if len(text) > CELL_MAX else text
