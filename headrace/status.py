"""What `headrace status` knows: the services, the applied definitions, and how far the workers have come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from features.applied import applied_version, load_applied
from features.plan import Definitions
from headrace.connections import reach_kafka, reach_redis, without_password
from headrace.terminal import out, print_table, say
from schemas.errors import HeadraceError
from schemas.settings import ConnectionSettings


@dataclass(frozen=True)
class ServiceState:
    """A service: its address without any password, None where none is known, and why it doesn't answer."""

    address: str | None
    trouble: str | None


NOT_STARTED = ServiceState(None, "not started; `headrace up` starts it")


@dataclass(frozen=True)
class Status:
    """All of it."""

    home: str
    project: str
    services: dict[str, ServiceState]
    definitions: Definitions | None
    version: int

    def as_json(self) -> dict[str, Any]:
        """`kafka` and `redis` are addresses, null where none is known; `answers` says which of them answer."""
        return {
            "home": self.home,
            "project": self.project,
            **{name: state.address for name, state in self.services.items()},
            "answers": {name: state.trouble is None for name, state in self.services.items()},
            "applied_version": self.version,
            "views": list(self.definitions.views) if self.definitions else [],
            "services": list(self.definitions.services) if self.definitions else [],
        }

    def print(self) -> None:
        """For people."""
        print_table(
            ["service", "address", "state"],
            [(name, s.address or "none", s.trouble or "answers") for name, s in self.services.items()],
        )
        if self.definitions is None:
            say(f"nothing is applied in project {self.project!r}; `headrace apply` does it")
            return
        views, services = ", ".join(self.definitions.views), ", ".join(self.definitions.services)
        out().print(f"\nproject {self.project}, version {self.version}\nviews: {views}\nservices: {services}")


def look(settings: ConnectionSettings) -> Status:
    """The state of everything; a service that doesn't answer is part of the answer, not an error."""
    registry = settings.registry_address()
    return Status(
        home=str(settings.home),
        project=settings.project,
        services={"kafka": _kafka(settings), "redis": _redis(settings)},
        definitions=load_applied(registry, settings.project),
        version=applied_version(registry, settings.project),
    )


def _kafka(settings: ConnectionSettings) -> ServiceState:
    address = settings.kafka_bootstrap or settings.endpoints.kafka
    if not address:
        return NOT_STARTED
    try:
        reach_kafka(settings)
    except HeadraceError as error:
        return ServiceState(address, str(error))
    return ServiceState(address, None)


def _redis(settings: ConnectionSettings) -> ServiceState:
    url = settings.redis_url.get_secret_value() if settings.redis_url else settings.endpoints.redis
    if not url:
        return NOT_STARTED
    address = without_password(url)
    try:
        reach_redis(settings)
    except HeadraceError as error:
        return ServiceState(address, str(error))
    return ServiceState(address, None)
