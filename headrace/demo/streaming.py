"""Events through Kafka, into Redis and Iceberg, while vectors are read: a small deployment at work."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import httpx

from batch.land import run_lander
from batch.tables import events_table
from headrace.demo.prepare import TOPICS, Demo
from headrace.demo.processes import Process
from headrace.demo.produce import Produced, produce
from headrace.demo.reader import Reader
from headrace.demo.report import Line
from headrace.demo.watch import Folded, landed_messages, wait_until
from headrace.local.ports import free_ports
from schemas.errors import NotReady

START_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Running:
    """The processes, and where the server is."""

    worker: Process
    lander: Process
    server: Process
    url: str

    @property
    def all(self) -> list[Process]:
        return [self.worker, self.lander, self.server]


def start(demo: Demo, stack: ExitStack) -> Running:
    """Worker, lander and server, each a `headrace` command; `stack` ends them, whatever happens."""
    port = free_ports(1)[0]
    commands = {"worker": ["stream"], "lander": ["land"], "server": ["serve", "--port", str(port)]}
    started = {}
    # Before any thread of this process: see Process.
    for name, arguments in commands.items():
        started[name] = Process(name, arguments, demo.settings)
        stack.callback(started[name].kill)
    running = Running(**started, url=f"http://127.0.0.1:{port}")
    with demo.report.step("start", "starting worker, lander and server") as line:
        wait_for_server(running.url, running.server)
        line.say(f"worker, lander and server are up; the server listens at {running.url}")
    return running


def stream(demo: Demo, running: Running) -> Produced:
    """Produces everything; returns when it is folded and landed, with a reader beside it from first to last."""
    produced = Produced()
    total = len(demo.timeline)
    give_up = threading.Event()
    with demo.report.step("stream", "streaming") as line, ThreadPoolExecutor(1, "demo-producer") as pool:
        reader = Reader(running.url, demo.flights, lambda: produced.messages / total)
        reader.start()
        try:
            show = lambda done: line.bar("produced", done, total)  # noqa: E731
            producing = pool.submit(produce, demo.timeline, demo.settings, produced, show, give_up)
            _follow(demo, running, line, reader)
            producing.result()
        finally:
            give_up.set()
            vectors = reader.stop()
        demo.report.figures["vectors_read_while_streaming"] = vectors
        line.say(f"{produced.messages:,} messages produced, folded and landed; {vectors:,} vectors read meanwhile")
    return produced


def finish(demo: Demo, running: Running) -> None:
    """Stops the processes in the order in which their work ends, and lands what is left."""
    with demo.report.step("finish", "stopping server, worker and lander; landing what is left") as line:
        for process in (running.server, running.worker, running.lander):
            process.stop()
        events = demo.planned.loaded.events
        run_lander(demo.definitions, events, demo.batch, until_caught_up=True, stop=threading.Event())
        line.say("server, worker and lander have stopped; everything is landed")


def _follow(demo: Demo, running: Running, line: Line, reader: Reader) -> None:
    total = len(demo.timeline)
    folded = Folded(demo.stream, demo.definitions, TOPICS)

    def landed() -> int:
        messages = sum(landed_messages(demo.batch, events_table(topic), topic) for topic in TOPICS)
        line.bar("landed", messages, total)
        return messages

    def look() -> int:
        messages = sum(folded.messages(topic) for topic in TOPICS)
        line.bar("folded", messages, total)
        landed()
        line.now(f"streaming; {reader.vectors:,} vectors read")
        return messages

    try:
        wait_until("folding", total, look, running.all)
    finally:
        folded.close()
    wait_until("landing", total, landed, running.all)


def wait_for_server(url: str, server: Process) -> None:
    """Returns when the server answers. Raises ProcessFailed where it has ended, NotReady where it stays silent."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        server.check()
        try:
            if httpx.get(f"{url}/health", timeout=1.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise NotReady("the server does not answer", got=f"silence at {url}", hint=f"see {server.log}")
        time.sleep(POLL_S)
