"""The server's processes: uvicorn, one event loop a worker, a clean end.

    run(ServingSettings(), log=make_log)        # until SIGINT or SIGTERM

With several workers the port is bound once and shared; a worker that dies is started again by uvicorn's supervisor.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from schemas.errors import ConfigError
from serving.api import App, create_app
from serving.memory import keep_memory
from serving.served_log import Log
from serving.settings import ServingSettings

MakeLog = Callable[[], Log]
"""Makes the log of served vectors, in the process that writes to it."""

LOG_FACTORY = "HEADRACE_SERVE_LOG_FACTORY"
"""How a worker process finds the log that `run` was given: `module:function`."""
SETTINGS = "HEADRACE_SERVE_SETTINGS"
"""How a worker process finds the settings that `run` was given; secrets go by their own variables."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BACKLOG = 2_048


def run(settings: ServingSettings, log: MakeLog | None = None, *, app: App | None = None) -> None:
    """Serves until it is told to stop; requests under way get `shutdown_s` seconds.

    `log` is a function at a module's top level: worker processes import it. Raises ConfigError for settings that can't
    work, before anything listens.
    """
    settings.redis_address()
    common = {
        "host": settings.serve_host,
        "port": settings.serve_port,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": max(1, round(settings.shutdown_s)),
        "ws": "none",
        "lifespan": "on",
    }
    if settings.serve_workers == 1:
        keep_memory()
        with _clean_end():
            uvicorn.run(app or create_app(settings, None if log is None else log()), **common)  # type: ignore[arg-type]
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-metrics-"))
    os.environ[METRICS_FOLDER] = str(folder)
    os.environ.update(_environment(settings))
    if log is not None:
        os.environ[LOG_FACTORY] = f"{log.__module__}:{log.__qualname__}"
    try:
        uvicorn.run(
            "serving.server:worker_app",
            factory=True,
            workers=settings.serve_workers,
            **common,  # type: ignore[arg-type]
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _clean_end() -> Iterator[None]:
    """SIGTERM is the ordinary end, with status 0: uvicorn sends it to the process once more when it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def worker_app() -> App:
    """The application of one worker process."""
    logging.basicConfig(level=logging.WARNING)
    keep_memory()
    settings = ServingSettings.model_validate_json(os.environ[SETTINGS])
    factory = os.environ.get(LOG_FACTORY)
    if factory is None:
        return create_app(settings)
    module, _, name = factory.partition(":")
    make: MakeLog | None = getattr(importlib.import_module(module), name, None)
    if make is None:
        raise ConfigError("the log of served vectors can't be made", got=factory, hint="hand in a function of a module")
    return create_app(settings, make())


def _environment(settings: ServingSettings) -> dict[str, str]:
    """The settings as variables for worker processes: those that were set, each secret by its own name."""
    given = settings.model_fields_set
    variables = {SETTINGS: settings.model_dump_json(include=given - {"redis_url", "registry_url", "kafka_options"})}
    for name, secret in (("REDIS_URL", settings.redis_url), ("REGISTRY_URL", settings.registry_url)):
        if secret is not None:
            variables[f"HEADRACE_{name}"] = secret.get_secret_value()
    if settings.kafka_options:
        options = {name: value.get_secret_value() for name, value in settings.kafka_options.items()}
        variables["HEADRACE_KAFKA_OPTIONS"] = json.dumps(options)
    return variables
