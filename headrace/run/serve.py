"""`headrace serve`: the server over what is applied, its log of served vectors on Kafka."""

from __future__ import annotations

import errno
import logging
import socket

from features.plan import Definitions
from headrace.settings import read_settings
from headrace.terminal.output import say
from headrace.wiring import applied_definitions
from schemas.errors import ConfigError
from serving.server import MakeLog, run
from serving.settings import ServingSettings

LOOPBACKS = ("127.0.0.1", "localhost", "::1")


def run_serve(host: str | None, port: int | None, grpc_port: int | None, workers: int | None, log: bool) -> None:
    """Serve until a signal. Raises NotReady where nothing is applied, ConfigError where the port is taken."""
    settings = read_settings(
        ServingSettings, serve_host=host, serve_port=port, serve_grpc_port=grpc_port, serve_workers=workers
    )
    definitions = applied_definitions(settings)
    make_log = _log_factory(definitions) if log else None
    _check_port(settings.serve_host, settings.serve_port)
    if settings.serve_grpc_port is not None:
        _check_port(settings.serve_host, settings.serve_grpc_port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.serve_host not in LOOPBACKS:
        say(f"listening on {settings.serve_host}: whoever reaches it reads every feature")
    grpc = "" if settings.serve_grpc_port is None else f" and gRPC on port {settings.serve_grpc_port}"
    say(f"serving {', '.join(definitions.services) or 'no service yet'} on {_url(settings)}{grpc}; Ctrl-C stops it")
    run(settings, make_log)


def _log_factory(definitions: Definitions) -> MakeLog | None:
    """What makes the log, where some service has one. Raises ConfigError where Kafka's client isn't installed."""
    logged = [service.name for service in definitions.services.values() if service.log > 0]
    if not logged:
        return None
    try:
        from headrace.run.served_log import make_log
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"served vectors of {', '.join(logged)} are logged to Kafka, whose client isn't installed",
            got=f"no {error.name}",
            hint="pip install 'headrace[stream]', or serve with --no-log",
        ) from None
    return make_log


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ConfigError(
                "the port is taken" if taken else "the server can't listen there",
                where=f"{host}:{port}",
                got=str(error),
                hint="stop what listens there, or name another one with --port or --grpc-port",
            ) from None


def _url(settings: ServingSettings) -> str:
    host = f"[{settings.serve_host}]" if ":" in settings.serve_host else settings.serve_host
    return f"http://{host}:{settings.serve_port}"
