"""A worker in a process of its own, so that it can be killed: `python -m tests.contract.stream.worker_process JSON`."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.contract.stream.rig import Rig, declare, event_types

ROOT = Path(__file__).parents[3]


class WorkerProcess:
    """Started at once. `kill` is SIGKILL."""

    def __init__(self, rig: Rig, log: Path, *, until_caught_up: bool = False, **options: object) -> None:
        what = {
            "name": rig.name,
            "topic": rig.topic,
            "dedupe": rig.dedupe,
            "shards": rig.shards,
            "views": rig.views,
            "runner": rig.runner,
            "until_caught_up": until_caught_up,
            "settings": rig.settings.model_dump(mode="json", exclude={"redis_url"})
            | {"redis_url": rig.redis_url}
            | options,
        }
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.contract.stream.worker_process", json.dumps(what)],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """The exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(60)

    def wait(self, timeout_s: float = 90) -> int:
        return self.process.wait(timeout_s)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


def main(what: dict) -> None:
    from functools import partial

    from stream.settings import StreamSettings
    from stream.worker import run_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    definitions, events = declare(what["name"], what["topic"], what["dedupe"], what["shards"], what["views"])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    report = run_worker(
        definitions,
        events,
        StreamSettings(**what["settings"]),
        history=None,
        until_caught_up=what["until_caught_up"],
        stop=stop,
        progress=lambda report: logging.info("%s", report),
        runner=what["runner"],
        load=partial(event_types, what["name"], what["topic"], what["dedupe"]),
    )
    logging.info("ended: %s", report)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
