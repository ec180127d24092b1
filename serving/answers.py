"""Answers over HTTP: bodies in JSON, errors too, with the fact, what was got and the next step."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from schemas.errors import DataError, HeadraceError, NotFound, NotReady, Overloaded, RequestError, TooLarge

RETRY_AFTER_S = 1
"""When a client may ask again: a restart of Redis or a burst is over within a second or several of them."""


class Answer(NamedTuple):
    """A whole response."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"

    def asgi_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]


STATUSES: tuple[tuple[type[HeadraceError], int], ...] = (
    (NotFound, 404),
    (TooLarge, 413),
    (RequestError, 422),
    (Overloaded, 503),
    (NotReady, 503),
    (DataError, 500),
    (HeadraceError, 500),
)
"""The status of each kind of error; the first that fits."""


def json_answer(value: Any, status: int = 200) -> Answer:
    """A value as JSON."""
    return Answer(status, orjson.dumps(value))


def error_answer(error: HeadraceError, status: int | None = None) -> Answer:
    """An error as Answer; one that passes says when to ask again."""
    code = status or next(code for kind, code in STATUSES if isinstance(error, kind))
    headers = ((b"retry-after", b"%d" % RETRY_AFTER_S),) if code in (429, 503) else ()
    body = {
        "error": {"fact": error.fact, "where": error.where, "got": error.got, "next": error.hint},
        "detail": str(error),
    }
    return Answer(code, orjson.dumps(body), headers)


def internal_answer(error: BaseException) -> Answer:
    """An error that nobody foresaw: its text stays in the server's own log."""
    return error_answer(
        HeadraceError(
            "the server failed", got=type(error).__name__, hint="the traceback is in the server's log; please report it"
        )
    )
