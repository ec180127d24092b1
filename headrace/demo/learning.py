"""A training set by point-in-time join, a model, and flights scored by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pyarrow.parquet as pq

from batch.training import training_set
from headrace.demo.over_http import SERVICE, TIMEOUT_S, count_events
from headrace.demo.prepare import Demo
from headrace.demo.rows import training_rows
from headrace.demo.streaming import Running

if TYPE_CHECKING:
    from headrace.demo.model import Evaluation

FLIGHTS_SCORED = 200
SCORING = "scoring flights over HTTP and through Feast (importing it takes some seconds)"


def train(demo: Demo) -> Evaluation:
    """The features of every flight at its scheduled departure, and what they are worth to a model."""
    report = demo.report
    with report.step("training_set", "joining every flight with the features of its scheduled departure") as line:
        rows = training_rows(demo.flights)
        joined = training_set(demo.definitions, SERVICE, rows, demo.batch)
        path = demo.settings.home / "demo" / "training.parquet"
        pq.write_table(rows, path.with_name("rows.parquet"))
        pq.write_table(joined, path)
        report.check("training_rows", joined.num_rows, len(demo.flights), "rows of the training set, one a flight")
        line.say(f"{joined.num_rows:,} rows with {joined.num_columns - rows.num_columns} features each, in {path}")
    with report.step("model", "training the same model twice, with and without the streaming features") as line:
        from headrace.demo.model import evaluate

        evaluation = evaluate(joined)
        line.say(
            f"AUC on the last three months {evaluation.auc_with_streaming:.3f} with the streaming features,"
            f" {evaluation.auc_without:.3f} without"
        )
    return evaluation


def serve(demo: Demo, evaluation: Evaluation, running: Running) -> None:
    """Scores the last flights of the year. Their vectors are the same however they are fetched."""
    report = demo.report
    with report.step("serve", SCORING) as line:
        from headrace.demo.scoring import score

        known = demo.flights[demo.flights.tailnum.notna()].sort_values("scheduled_at", kind="stable")
        chosen = known.tail(FLIGHTS_SCORED).reset_index(drop=True)
        scored = score(chosen, evaluation.model, running.url, demo.settings, demo.batch, demo.definitions)
        for way, equal in scored.equal.items():
            report.check(f"served_{way.key}", equal, len(chosen), f"vectors {way.words}, equal to those over HTTP")
        with httpx.Client(base_url=running.url, timeout=TIMEOUT_S) as client:
            folded = count_events(client, demo.flights)
        # Asked of the server, and so logged: those over HTTP and those of Feast's remote client.
        report.figures |= {"events_folded": folded, "vectors_scored": 2 * len(chosen)}
        good = sum(demo.timeline.good.values())
        report.check("events_folded", folded, good, "events folded, as the features in Redis count them")
        first = int(scored.scores.argmax())
        flight = chosen.iloc[first]
        line.say(
            f"{len(chosen)} flights scored; {flight.carrier} {flight.flight} {flight.origin}–{flight.dest} is the most"
            f" likely to be late ({scored.scores[first]:.0%})"
        )
