"""The body of a request for features, checked against the server's bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import orjson

from schemas.errors import RequestError, TooLarge
from serving.entities import instant_us
from serving.settings import ServingSettings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

FIELDS = {
    "entities": dict,
    "features": list,
    "feature_service": str,
    "full_feature_names": bool,
    "include_feature_view_version_metadata": bool,
    "as_of": object,
    "explain": bool,
}


class Wanted(NamedTuple):
    """What a request asks for."""

    what: str | list[str]
    entities: dict[str, list[Any]]
    full_feature_names: bool
    versions: bool
    as_of_us: int | None
    explain: bool


class Disconnected(Exception):
    """The client has gone before it had sent everything."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive, bytes_max: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be more than `bytes_max`."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > bytes_max:
            raise _too_large(value.decode(), bytes_max)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if message["type"] == "http.disconnect":
            raise Disconnected
        if len(body) > bytes_max:
            raise _too_large(str(len(body)), bytes_max)
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > bytes_max:
            raise _too_large(f"{size} and more", bytes_max)
    return b"".join(parts)


def parse(body: bytes, settings: ServingSettings) -> Wanted:
    """The request in a body. Raises RequestError."""
    request = json_object(body)
    for name, value in request.items():
        kind = FIELDS.get(name)
        if kind is None:
            raise RequestError("unknown field", got=repr(name), hint=f"a request has: {', '.join(FIELDS)}")
        if value is not None and not isinstance(value, kind):
            raise RequestError(f'"{name}" is a {_WORDS[kind]}', got=repr(value)[:80], hint="see /openapi.json")
    entities = request.get("entities")
    if entities is None:
        raise RequestError('a request has "entities"', got="none", hint='write {"entities": {"origin": ["JFK"]}, …}')
    check_entities(entities, settings)
    what = asked(request.get("feature_service"), request.get("features"), settings)
    as_of = request.get("as_of")
    return Wanted(
        what,
        entities,
        bool(request.get("full_feature_names")),
        bool(request.get("include_feature_view_version_metadata")),
        None if as_of is None else instant_us(as_of, '"as_of"'),
        bool(request.get("explain")),
    )


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises RequestError."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError("the body is JSON", got=str(error), hint='send it as in {"entities": …}') from None
    if not isinstance(request, dict):
        raise RequestError("the body is a JSON object", got=type(request).__name__, hint="see /openapi.json")
    return request


def check_values(entities: int, features: int, settings: ServingSettings) -> None:
    """Raises RequestError where an answer would be larger than the server gives."""
    if features > settings.features_max:
        raise _too_many("features", features, settings.features_max)
    if entities * features > settings.values_max:
        raise _too_many("values (entities × features)", entities * features, settings.values_max)


_WORDS: dict[type, str] = {dict: "JSON object", list: "list", str: "text", bool: "true or false", object: "value"}


def check_entities(entities: dict[str, Any], settings: ServingSettings) -> None:
    """Raises RequestError for a column that is none, or has more entities than the server takes."""
    for name, values in entities.items():
        if type(values) is not list:
            raise RequestError(
                "each entity column is a list", where=name, got=repr(values)[:80], hint=f'write "{name}": […]'
            )
        if len(values) > settings.entities_max:
            raise _too_many("entities", len(values), settings.entities_max)


def asked(service: str | None, features: list[Any] | None, settings: ServingSettings) -> str | list[str]:
    """The service or the references that a request names. Raises RequestError for both, none, or too many."""
    if service:
        if features:
            raise RequestError(
                'a request has "feature_service" or "features"', got="both", hint="leave one of the two out"
            )
        return service
    if not features:
        raise RequestError(
            "a request names features", got="none", hint='write "feature_service": … or "features": ["view:feature"]'
        )
    if len(features) > settings.features_max:
        raise _too_many("features", len(features), settings.features_max)
    for reference in features:
        if type(reference) is not str:
            raise RequestError("a feature is named as view:feature", got=repr(reference)[:80], hint="send text")
    return list(features)


def _too_many(what: str, got: int, limit: int) -> RequestError:
    return RequestError(f"a request has at most {limit:,} {what}", got=f"{got:,}", hint="split it into several")


def _too_large(got: str, bytes_max: int) -> TooLarge:
    return TooLarge(f"a body has at most {bytes_max:,} bytes", got=got, hint="split the request into several")
