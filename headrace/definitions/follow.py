"""Long-running work that follows what is applied: it ends in order and begins anew with the new definitions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from features.applied import applied_version, load_applied
from features.plan import Definitions
from headrace.terminal.output import say
from headrace.wiring import Project, open_project
from schemas.errors import HeadraceError
from schemas.settings import ConnectionSettings

POLL_S = 1.0

Report = TypeVar("Report")


def run_following(
    settings: ConnectionSettings,
    stop: threading.Event,
    run: Callable[[Project, threading.Event], Report],
) -> list[Report]:
    """`run` until it ends by itself or `stop` is set, again for each change of views, events or services applied.

    Its event is set when it should end, whatever for. The reports are in the order of the runs.
    """
    reports = []
    while True:
        watch = _Watch(settings, stop)
        project = open_project(settings)
        watch.start(project.definitions)
        try:
            reports.append(run(project, watch.end))
        finally:
            watch.close()
        if stop.is_set() or not watch.changed:
            return reports
        say("other definitions have been applied; going on with those")


class _Watch:
    """Looks every second whether something else was applied; `end` is set then, and when `stop` is."""

    def __init__(self, settings: ConnectionSettings, stop: threading.Event) -> None:
        self.end = threading.Event()
        self.changed = False
        self._settings = settings
        self._stop = stop
        self._closed = threading.Event()
        # Before the definitions are read: what is applied in between is seen as a change.
        self._version = applied_version(settings.registry_address(), settings.project)
        self._thread: threading.Thread | None = None

    def start(self, definitions: Definitions) -> None:
        self._thread = threading.Thread(target=self._watch, args=(definitions,), name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, definitions: Definitions) -> None:
        next_look = POLL_S
        waited = 0.0
        # Short steps: a signal should not wait for the next look.
        while not self._closed.wait(0.1):
            waited += 0.1
            if self._stop.is_set():
                self.end.set()
                return
            if waited >= next_look:
                next_look = waited + POLL_S
                if self._other_applied(definitions):
                    self.changed = True
                    self.end.set()
                    return

    def _other_applied(self, definitions: Definitions) -> bool:
        url, project = self._settings.registry_address(), self._settings.project
        try:
            version = applied_version(url, project)
            if version == self._version:
                return False
            self._version = version
            found = load_applied(url, project)
        except HeadraceError:
            # The registry is away for a moment: what was applied is gone on with, and looked at again.
            return False
        return found is not None and _work(found) != _work(definitions)


def _work(definitions: Definitions) -> object:
    """What the work depends on: descriptions and owners are none of it."""
    views = {
        name: (view.fingerprint, definitions.read_by_event_clock(name)) for name, view in definitions.views.items()
    }
    services = {name: (service.selections, service.log) for name, service in definitions.services.items()}
    return definitions.events, views, {name: view.fingerprint for name, view in definitions.derived.items()}, services
