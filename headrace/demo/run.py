"""The main job from beginning to end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from headrace.demo.learning import serve, train
from headrace.demo.prepare import prepare
from headrace.demo.proof import ask, count, prove
from headrace.demo.report import Report
from headrace.demo.streaming import finish, start, stream
from schemas.errors import NotReady
from schemas.settings import ConnectionSettings

if TYPE_CHECKING:
    from headrace.demo.model import Evaluation


def run_demo(settings: ConnectionSettings, console: Console, share: float = 1.0) -> Report:
    """Runs every step and answers the report, which also stands in HOME/demo.json.

    `share`: of every month's days, for a quick look. Kafka and Redis stay up; processes started here are ended. Raises
    HeadraceError where a step can't be done; what is merely off is in the report.
    """
    # scikit-learn's threads spin while they wait for each other, and starve whatever else the machine does. This is
    # read when the first package with such threads is imported: hence the imports inside the steps.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = Report(console)
    with _alone(settings.home), ExitStack() as stack:
        demo = prepare(settings, report, share)
        running = start(demo, stack)
        produced = stream(demo, running)
        evaluation = train(demo)
        serve(demo, evaluation, running)
        finish(demo, running)
        count(demo, produced)
        prove(demo)
        ask(demo)
        _note(report, evaluation)
        report.write(settings.home / "demo.json")
    return report


def _note(report: Report, evaluation: Evaluation) -> None:
    report.figures |= {
        "auc_with_streaming": round(evaluation.auc_with_streaming, 4),
        "auc_without": round(evaluation.auc_without, 4),
        "auc_at_gate_with_streaming": round(evaluation.auc_at_gate_with_streaming, 4),
        "auc_at_gate_without": round(evaluation.auc_at_gate_without, 4),
    }
    report.notes += [
        (
            f"{evaluation.auc_with_streaming:.3f}",
            f"AUC with the streaming features, over {evaluation.rows_tested:,} flights of the last three months",
        ),
        (f"{evaluation.auc_without:.3f}", "AUC of the same model without them"),
        (
            f"{evaluation.auc_at_gate_with_streaming:.3f}",
            f"and {evaluation.auc_at_gate_without:.3f} without, over the flights that had not left early",
        ),
    ]


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One demo of a home at a time. The kernel lets go of the lock when its holder ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotReady("another demo is at work", got=str(home), hint="wait for it, or end it") from None
        yield
