"""`headrace rejects replay`: the rejects that are events by now, back into their topics."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.run.rejects import ask, condition
from headrace.settings import read_settings
from headrace.terminal.output import print_json, say
from headrace.terminal.ticker import ticker
from headrace.wiring import open_project
from schemas.rejection import REJECTS_SCHEMA, Rejection, rejections_of
from stream.replay import Replay, ReplayReport
from stream.settings import StreamSettings

PAGE = 5_000
"""Rejects in memory at once."""


def run_replay(topic: str | None, reason: str | None, dry_run: bool, json: bool) -> None:
    """Send, and say what became of them."""
    settings = read_settings(StreamSettings)
    where = condition(topic, reason)
    project = open_project(settings)
    events = {str(event.spec().topic): event for event in project.events.values() if event.spec().topic is not None}
    with ticker("replaying") as tick, Replay(settings, events, dry_run=dry_run) as replay:
        for rejections in _pages(where):
            replay.send(rejections)
            tick(f"{replay.report.replayed.total():,} sent", "")
    report = replay.report
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "replayed": report.replayed,
                "still_rejected": report.still_rejected,
                "before": report.before,
                "elsewhere": report.elsewhere,
            }
        )
    else:
        _print(report, dry_run)


def _pages(where: str) -> Iterator[list[Rejection]]:
    names = ", ".join(REJECTS_SCHEMA.names)
    order = "ORDER BY topic, kafka_partition, kafka_offset, kafka_timestamp"
    start = 0
    while True:
        table = ask(f"SELECT {names} FROM rejects {where} {order} LIMIT {PAGE} OFFSET {start}")
        if not len(table):
            return
        yield rejections_of(table)
        start += len(table)


def _print(report: ReplayReport, dry_run: bool) -> None:
    sent = "would be sent" if dry_run else "sent"
    for topic, count in report.replayed.items():
        say(f"{count:,} {sent} to {topic}")
    if not report.replayed:
        say("none is an event by now" if report.still_rejected else "there is nothing to send")
    for reason, count in report.still_rejected.items():
        say(f"{count:,} are still rejected: {reason}")
    if report.before:
        say(f"{report.before:,} had been replayed before")
    if report.elsewhere:
        say(f"{report.elsewhere:,} came from files or from topics that no event stands on: import the mended file")
