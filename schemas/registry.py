"""The schema registry: what the writers' schemas of Avro and Protobuf messages are, by number.

A registry that can't be reached is NotReady: nothing is said about a message then. One that answers that it has no such
schema has said something about the message.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigError, NotReady

if TYPE_CHECKING:
    # Costs a host that reads JSON alone nothing, and need not be installed there.
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

T = TypeVar("T")
Key = tuple[str | int, ...]
CACHED_MAX = 1_000
"""Schemas kept; topics have a few, so what drops out is rare and asked for again."""
UNKNOWN_FOR_S = 30.0
"""How long 'there is none' is believed: a producer registers before it sends, so only a replica that lags says it."""
TIMEOUT_S = 10
CLIENT_DEFAULTS = {"timeout": TIMEOUT_S, "max.retries": 2, "retries.wait.ms": 200, "retries.max.wait.ms": 2_000}
"""Two retries bridge a hiccup; whoever asked waits out an outage, and says why (NotReady)."""
_FORMAT_OF = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json"}
_UNREACHABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class Reference(NamedTuple):
    """A schema that another one names."""

    name: str
    subject: str
    version: int


class RegisteredSchema(NamedTuple):
    """`format` is one of schemas.event.FORMATS; a Protobuf schema's `text` is its descriptor in base64."""

    format: str
    text: str
    references: tuple[Reference, ...]


class Registry:
    """Asks a registry through confluent-kafka's client, and remembers what it said. Safe for use by several threads.

    `url`: https://…, http://…, file:///folder (see `schemas.file_registry`), or mock://name, which lives in this
    process alone. `options` are the client's own (`basic.auth.user.info`, `ssl.ca.location`, …).
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._options = dict(options or {})
        self._client: SchemaRegistryClient | None = None
        self._cache: OrderedDict[Key, tuple[RegisteredSchema | None, float]] = OrderedDict()
        self._lock = threading.Lock()

    def schema(self, schema_id: int, format_: str) -> RegisteredSchema | None:
        """The schema of this number; None where there is none. Raises NotReady, or ConfigError for a setting."""
        # Only a descriptor can be read by a program; the registry would answer a .proto file's text.
        as_ = "serialized" if format_ == "protobuf" else None
        return self._remembered((schema_id,), lambda: self.client.get_schema(schema_id, fmt=as_))

    def version(self, reference: Reference, format_: str) -> RegisteredSchema | None:
        """The schema that another one refers to; as `schema`."""
        as_ = "serialized" if format_ == "protobuf" else None
        key = (reference.subject, reference.version)
        return self._remembered(key, lambda: self.client.get_version(*key, deleted=True, fmt=as_).schema)

    @property
    def client(self) -> SchemaRegistryClient:
        """confluent-kafka's client, for producers. Raises ConfigError for a URL or an option that it doesn't take."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._url, self._options)
            return self._client

    @property
    def where(self) -> str:
        """The registry's address without credentials: fit for a log."""
        return _without_credentials(self._url)

    def _remembered(self, key: Key, ask: Callable[[], Schema]) -> RegisteredSchema | None:
        now = monotonic()
        with self._lock:
            known = self._cache.get(key)
        if known is not None and now < known[1]:
            return known[0]
        schema = self._asked(ask)
        with self._lock:
            self._cache[key] = (schema, now + UNKNOWN_FOR_S if schema is None else float("inf"))
            self._cache.move_to_end(key)
            while len(self._cache) > CACHED_MAX:
                self._cache.popitem(last=False)
        return schema

    def _asked(self, ask: Callable[[], Schema]) -> RegisteredSchema | None:
        client = self.client
        # Installed, since there is a client.
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415

        try:
            schema = ask()
        except SchemaRegistryError as error:
            code, status = int(error.error_code or -1), int(error.http_status_code)
            # 404 alone may be a proxy's: only a registry has these codes.
            if status == 404 and code // 100 == 404:
                return None
            answer = f"HTTP {status}: {error.error_message}"
            if status in _UNREACHABLE:
                raise self._not_ready(answer) from error
            raise ConfigError(
                "the schema registry refuses to answer",
                where=self.where,
                got=answer,
                hint="see HEADRACE_SCHEMA_REGISTRY_URL and the credentials in HEADRACE_SCHEMA_REGISTRY_OPTIONS",
            ) from error
        except Exception as error:
            # Of the network, a token's endpoint, an answer that isn't a registry's: nothing was said of a schema.
            raise self._not_ready(f"{type(error).__name__}: {error}") from error
        finally:
            # The client keeps every schema for ever; what is remembered here is bounded.
            client.clear_caches()  # type: ignore[no-untyped-call]
        references = tuple(
            Reference(str(each.name), str(each.subject), int(each.version or 0)) for each in schema.references or ()
        )
        kind = schema.schema_type or "AVRO"
        return RegisteredSchema(_FORMAT_OF.get(kind, kind), schema.schema_str or "", references)

    def _not_ready(self, answer: str) -> NotReady:
        return NotReady(
            "the schema registry can't be reached, so no message can be read",
            where=self.where,
            got=_without_credentials(answer),
            hint="see that it is up; nothing is skipped meanwhile",
        )


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


_MOCKS: dict[str, SchemaRegistryClient] = {}


def _client(url: str, options: Mapping[str, str]) -> SchemaRegistryClient:
    parts = urlsplit(url)
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415

        from schemas.file_registry import FileRegistryClient  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "a schema registry needs packages that aren't installed", got=str(error), hint="install headrace[formats]"
        ) from error
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return FileRegistryClient(Path(unquote(parts.path)))
    if parts.scheme not in ("http", "https", "mock"):
        raise ConfigError(
            "HEADRACE_SCHEMA_REGISTRY_URL is https://…, file:///folder or, in tests, mock://name",
            got=f"{parts.scheme}://…" if parts.scheme else "no scheme",
        )
    if parts.scheme == "mock" and url in _MOCKS:
        return _MOCKS[url]
    numbers = {name: int(value) for name, value in options.items() if name in CLIENT_DEFAULTS and value.isdigit()}
    try:
        client = SchemaRegistryClient.new_client({"url": url} | CLIENT_DEFAULTS | dict(options) | numbers)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            "the schema registry's client refuses its settings",
            got=str(error),
            hint="HEADRACE_SCHEMA_REGISTRY_OPTIONS takes what confluent-kafka's SchemaRegistryClient does",
        ) from error
    if parts.scheme == "mock":
        _MOCKS[url] = client
    return client
