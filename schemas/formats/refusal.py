"""Why a message is no event, before it has a place in a topic: a reason, what was found, and the field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import ValidationError

from schemas.rejection import DETAIL_CHARACTERS_MAX, Reason


class Refusal(NamedTuple):
    """`row` is the message's place among those that were read."""

    row: int
    reason: Reason
    detail: str
    path: str


class Misread(Exception):
    """Raised while one message is read: it is none of its format, or a field holds what no value is made of."""

    def __init__(self, detail: str, path: str = "", reason: Reason = Reason.UNDECODABLE) -> None:
        super().__init__(detail)
        self.detail = detail
        self.path = path
        self.reason = reason

    def refusal(self, row: int) -> Refusal:
        """The same, of one message."""
        return Refusal(row, self.reason, self.detail[:DETAIL_CHARACTERS_MAX], self.path)


def refused(row: int, error: Exception, time: str) -> Refusal:
    """What pydantic's first error says. `time` is the event's time column."""
    if not isinstance(error, ValidationError):
        # A validator of the schema's own met a value that it wasn't written for: that is the message's fault, and
        # must not stop everything else.
        detail = f"a validator of the schema raised {type(error).__name__}: {error}"
        return Refusal(row, Reason.BAD_VALUE, detail[:DETAIL_CHARACTERS_MAX], "")
    first = error.errors(include_url=False, include_context=False)[0]
    kind, path = first["type"], _path(first["loc"])
    if kind in _MISSING:
        reason = Reason.MISSING_FIELD
    elif kind in _UNDECODABLE:
        reason = Reason.UNDECODABLE
    elif path == time and first["input"] is not None:
        reason = Reason.BAD_TIME
    else:
        reason = Reason.BAD_VALUE if kind in _VALUES else Reason.WRONG_TYPE
    return Refusal(row, reason, first["msg"][:DETAIL_CHARACTERS_MAX], path)


_MISSING = frozenset({"missing"})
_UNDECODABLE = frozenset({"json_invalid", "json_type", "model_type", "model_attributes_type"})
_VALUES = frozenset(
    {
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "multiple_of",
        "string_too_short",
        "string_too_long",
        "string_pattern_mismatch",
        "too_short",
        "too_long",
        "literal_error",
        "enum",
        "is_instance_of",  # an Enum's: nothing else of an event is checked so
        "value_error",
        "assertion_error",
        "decimal_max_digits",
        "decimal_max_places",
        "decimal_whole_digits",
        "int_parsing_size",
    }
)


def _path(location: Iterable[int | str]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path
