"""The formats of messages. A new one is a reader here, a row of `reader_of` and a name in `schemas.event.FORMATS`."""

from __future__ import annotations

from schemas.errors import ConfigError
from schemas.event import Event
from schemas.formats.json import JsonReader
from schemas.formats.read import Reader
from schemas.registry import Registry


def reader_of(event: type[Event], registry: Registry | None) -> Reader:
    """Reads the messages of an event type. Raises ConfigError where its format needs what isn't set or installed."""
    spec = event.spec()
    if spec.format == "json":
        return JsonReader(event)
    if registry is None:
        raise ConfigError(
            f"messages in {spec.format} name their schema, which a schema registry holds",
            where=spec.log_name,
            got="none",
            hint="set HEADRACE_SCHEMA_REGISTRY_URL to its https:// address, or to file:///folder for a local one",
        )
    try:
        from schemas.formats.registered import RegisteredReader  # noqa: PLC0415  # a host of JSON alone lacks fastavro
    except ImportError as error:
        raise ConfigError(
            f"messages in {spec.format} need packages that aren't installed",
            where=spec.log_name,
            got=str(error),
            hint="install headrace[formats]",
        ) from error
    return RegisteredReader(event, registry)
