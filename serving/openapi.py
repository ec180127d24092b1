"""The server's OpenAPI document, written by hand: nothing on the way of a read is generated from it."""

from __future__ import annotations

from typing import Any

from features.plan import Definitions
from schemas.event import Column

JSON = "application/json"


def document(definitions: Definitions | None) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes, with the services, features and columns that are applied."""
    schemas = SCHEMAS if definitions is None else SCHEMAS | {"FeaturesRequest": _features_request(definitions)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": "1",
            "description": "Feature vectors in Feast's protocol; `as_of` and `explain` are headrace's own.",
        },
        "paths": {
            "/get-online-features": {"post": _post("Feature vectors", "FeaturesRequest", "FeaturesAnswer", (404, 422))},
            "/push": {
                "post": _post("Rows for a push source of plain Feast views", "PushRequest", None, (404, 422, 429))
            },
            "/write-to-online-store": {
                "post": _post("Rows for a plain Feast view", "WriteRequest", None, (404, 422, 429))
            },
            "/materialize": {
                "post": _post("Offline to online for plain Feast views", "MaterializeRequest", None, (404, 422, 429))
            },
            "/materialize-incremental": {
                "post": _post("The same since the last time", "MaterializeIncrementalRequest", None, (404, 422, 429))
            },
            "/health": {"get": _get("The process is alive", ())},
            "/ready": {"get": _get("Every view can be read, within the bound on its age", (503,))},
            "/metrics": {"get": _get("Counts and percentiles for Prometheus", (), "text/plain")},
            "/openapi.json": {"get": _get("This document", ())},
        },
        "components": {"schemas": schemas},
    }


def _features_request(definitions: Definitions) -> dict[str, Any]:
    """The request's schema, which names what there is. Plain Feast views are not in it, though they are answered."""
    general: dict[str, Any] = SCHEMAS["FeaturesRequest"]
    references = [f"{view.name}:{each.name}" for view in definitions.views.values() for each in view.features]
    references += [f"{view.name}:{each.name}" for view in definitions.derived.values() for each in view.features]
    keys = [key for view in definitions.views.values() for key in view.keys]
    columns = {c.name: c for c in [*keys, *(c for view in definitions.derived.values() for c in view.request)]}
    return general | {
        "properties": general["properties"]
        | {
            "entities": _COLUMNS | {"properties": {name: _column(column) for name, column in columns.items()}},
            "feature_service": {"enum": [*definitions.services, None]},
            "features": {"type": ["array", "null"], "items": {"enum": references} if references else _TEXT},
        }
    }


def _column(column: Column) -> dict[str, Any]:
    """A column of a request: a list of values of its type, or nulls."""
    known = _JSON_TYPES.get(column.type)
    return {"type": "array", "items": {} if known is None else {"type": [known, "null"]}}


_JSON_TYPES = {
    "bool": "boolean",
    "int64": "integer",
    "float64": "number",
    "string": "string",
    "date": "string",
    "timestamp": "string",
    "bytes": "string",
}


def _post(summary: str, request: str, answer: str | None, errors: tuple[int, ...]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer}"} if answer else {}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{request}"}}},
        },
        "responses": {
            "200": {"description": "The answer", "content": {JSON: {"schema": schema}}},
            **_errors((*errors, 413, 503)),
        },
    }


def _get(summary: str, errors: tuple[int, ...], content: str = JSON) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "The answer", "content": {content: {}}}, **_errors(errors)},
    }


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {
        str(status): {
            "description": REASONS[status],
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            **({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status in (429, 503) else {}),
        }
        for status in statuses
    }


REASONS = {
    404: "It names something that isn't there",
    413: "The body is larger than the server takes",
    422: "It can't be answered as it was put",
    429: "More writes at once than the server takes",
    503: "There is no true answer yet, or no room for another request",
}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean", "default": False}
_COLUMNS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {}},
    "description": "A list a column; all of one length",
}
_INSTANT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}

SCHEMAS: dict[str, Any] = {
    "FeaturesRequest": {
        "type": "object",
        "required": ["entities"],
        "additionalProperties": False,
        "properties": {
            "entities": _COLUMNS,
            "feature_service": {"type": ["string", "null"]},
            "features": {"type": ["array", "null"], "items": {**_TEXT, "pattern": "^[^:]+:[^:]+$"}},
            "full_feature_names": _FLAG,
            "include_feature_view_version_metadata": _FLAG,
            "as_of": {**_INSTANT, "description": "Answer for this instant; one already folded past is INVALID"},
            "explain": {**_FLAG, "description": "Tell for each value where it came from"},
        },
    },
    "FeaturesAnswer": {
        "type": "object",
        "required": ["metadata", "results"],
        "properties": {
            "metadata": {
                "type": "object",
                "required": ["feature_names"],
                "properties": {"feature_names": {"type": "array", "items": _TEXT}},
            },
            "results": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["values", "statuses", "event_timestamps"],
                    "properties": {
                        "values": {"type": "array", "items": {}},
                        "statuses": {
                            "type": "array",
                            "items": {"enum": ["INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]},
                        },
                        "event_timestamps": {"type": "array", "items": _TEXT},
                    },
                },
            },
            "headrace": {"type": "object"},
            "explain": {"type": "array", "items": {"type": "object"}},
        },
    },
    "PushRequest": {
        "type": "object",
        "required": ["push_source_name", "df"],
        "properties": {
            "push_source_name": _TEXT,
            "df": _COLUMNS,
            "to": {"enum": ["online", "offline", "online_and_offline"], "default": "online"},
            "allow_registry_cache": {"type": "boolean", "default": True},
            "transform_on_write": {"type": "boolean", "default": True},
        },
    },
    "WriteRequest": {
        "type": "object",
        "required": ["feature_view_name", "df"],
        "properties": {
            "feature_view_name": _TEXT,
            "df": _COLUMNS,
            "allow_registry_cache": {"type": "boolean", "default": True},
            "transform_on_write": {"type": "boolean", "default": True},
        },
    },
    "MaterializeRequest": {
        "type": "object",
        "properties": {
            "start_ts": {"type": ["string", "null"]},
            "end_ts": {"type": ["string", "null"]},
            "feature_views": {"type": ["array", "null"], "items": _TEXT},
            "disable_event_timestamp": _FLAG,
        },
    },
    "MaterializeIncrementalRequest": {
        "type": "object",
        "required": ["end_ts"],
        "properties": {"end_ts": _TEXT, "feature_views": {"type": ["array", "null"], "items": _TEXT}},
    },
    "Error": {
        "type": "object",
        "required": ["error", "detail"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["fact", "where", "got", "next"],
                "properties": dict.fromkeys(("fact", "where", "got", "next"), _TEXT),
            },
            "detail": _TEXT,
        },
    },
}
