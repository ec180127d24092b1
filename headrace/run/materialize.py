"""`headrace materialize`: feature values at regular instants, as a table."""

from __future__ import annotations

from datetime import UTC, datetime

from batch.materialize import materialize
from batch.settings import BatchSettings
from headrace.settings import read_settings
from headrace.terminal.output import counting, print_json, say
from headrace.wiring import check_view, evaluable_definitions
from schemas.duration import parse_duration
from schemas.errors import RequestError


def run_materialize(view: str, start: str, end: str, every: str, json: bool) -> None:
    """Write what is missing."""
    first, last, every_us = _instant("--from", start), _instant("--to", end), _every(every)
    settings = read_settings(BatchSettings)
    definitions = evaluable_definitions(settings)
    check_view(definitions, view)
    with counting(f"materializing {view}") as count:
        report = materialize(
            definitions,
            view,
            settings,
            start=first,
            end=last,
            every_us=every_us,
            progress=lambda done, _: count(done, "instants"),
        )
    if json:
        print_json({"there_before": report.there_before, "written": report.written, "rows": report.rows})
    else:
        before = f", {report.there_before:,} were there before" if report.there_before else ""
        say(f"{report.written:,} instants written, {report.rows:,} rows{before}: headrace sql 'FROM features.{view}'")


def _instant(option: str, text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        hint = f"write {option} 2013-06-01T12:00:00"
        raise RequestError(f"{option} is an instant in ISO 8601", got=repr(text), hint=hint) from None
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def _every(text: str) -> int:
    try:
        return parse_duration(text)
    except (TypeError, ValueError) as error:
        raise RequestError("--every is a duration", got=repr(text), hint=f"write --every 1h ({error})") from None
