"""A small client of the server, sync and async: `from serving import Client`.

    with Client("http://127.0.0.1:6566") as client:
        features = client.get("late_arrival", {"origin": ["JFK"], "carrier": ["AA"], "distance_miles": [2475]})
        features.to_pandas()

    async with AsyncClient() as client:
        features = await client.get(["airport_delays:last_delay"], {"origin": ["JFK"]})

Connections are kept and reused. What passes (503, 429, a broken connection) is tried again, after the time that the
server names; everything else is raised at once, as the exceptions of the server itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
import orjson
import pyarrow as pa

from schemas.errors import DataError, HeadraceError, NotFound, NotReady, Overloaded, RequestError, TooLarge

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl  # type: ignore[import-not-found]

URL = "http://127.0.0.1:6566"
TIMEOUT_S = 5.0
RETRIES = 3
CONNECTIONS_MAX = 32
BACKOFF_S = 0.05
RETRY_AFTER_MAX_S = 5.0
PASSING = (429, 503)

ERRORS: dict[int, type[HeadraceError]] = {
    404: NotFound,
    413: TooLarge,
    422: RequestError,
    429: Overloaded,
    503: NotReady,
}

Entities = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Features:
    """An answer, column by column; join keys first. Missing values are None, and `statuses` says why."""

    columns: dict[str, list[Any]]
    statuses: dict[str, list[str]]
    event_timestamps: dict[str, list[str]]
    instants: list[str]
    """The instant of each vector, ISO 8601."""
    ages_us: list[int | None]
    """How old what each vector was read from is."""
    reasons: dict[int, str]
    """Why a vector has INVALID values, by its number."""
    explain: list[dict[str, Any]]
    """Where each value came from, if that was asked for."""

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns by name."""
        return self.columns

    def to_rows(self) -> list[dict[str, Any]]:
        """A dict for each entity."""
        names = list(self.columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]

    def to_arrow(self) -> pa.Table:
        """A table of Arrow."""
        return pa.table({name: pa.array(values) for name, values in self.columns.items()})

    def to_pandas(self) -> pd.DataFrame:
        """A frame of pandas, which must be installed."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """A frame of Polars, which must be installed."""
        import polars  # noqa: PLC0415 (not everybody has it)

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame


_Http = TypeVar("_Http", httpx.Client, httpx.AsyncClient)


class _Connected(Generic[_Http]):
    """What both clients are told, and their pool of connections."""

    _kind: type[_Http]
    _http: _Http

    def __init__(
        self,
        url: str = URL,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        connections_max: int = CONNECTIONS_MAX,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._retries = retries
        self._http = self._kind(
            base_url=url,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max),
            headers={"content-type": "application/json", **(headers or {})},
        )

    def _attempts(self) -> _Attempts:
        return _Attempts(self._url, self._retries, self._timeout_s)


class _Attempts:
    """One question's attempts, whoever sends them: after each, the answer or when to try again."""

    def __init__(self, url: str, retries: int, timeout_s: float) -> None:
        self._url = url
        self._left = retries
        self._made = 0
        self._deadline = time.monotonic() + timeout_s

    def judge(self, outcome: httpx.Response | httpx.TransportError) -> Features | float:
        """The answer, or the seconds to wait before the next attempt. Raises what the server said, or NotReady."""
        response = outcome if isinstance(outcome, httpx.Response) else None
        if response is not None and response.status_code not in PASSING:
            return _features(response)
        pause = _pause(self._made, response)
        if not self._left or time.monotonic() + pause > self._deadline:
            if isinstance(outcome, httpx.Response):
                return _features(outcome)
            raise _unreachable(self._url, outcome) from outcome
        self._left -= 1
        self._made += 1
        return pause


class Client(_Connected[httpx.Client]):
    """The sync client; may be shared by threads.

    `retries` more attempts are made when the server says 'not now' or can't be reached, none after `timeout_s` seconds.
    Raises NotFound, RequestError, TooLarge, NotReady, Overloaded or DataError, each with the server's own words.
    """

    _kind = httpx.Client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def get(
        self,
        what: str | Sequence[str],
        entities: Entities,
        *,
        full_feature_names: bool = False,
        as_of: datetime | str | float | None = None,
        explain: bool = False,
    ) -> Features:
        """The features of a service (by name), or a list of 'view:feature', for entities given column by column."""
        body = _body(what, entities, full_feature_names, as_of, explain)
        attempts = self._attempts()
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.post(READ, content=body)
            except httpx.TransportError as error:
                outcome = error
            answer = attempts.judge(outcome)
            if isinstance(answer, Features):
                return answer
            time.sleep(answer)

    def ready(self) -> bool:
        """True where every view can be read."""
        try:
            return self._http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False


class AsyncClient(_Connected[httpx.AsyncClient]):
    """The same for asyncio."""

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def get(
        self,
        what: str | Sequence[str],
        entities: Entities,
        *,
        full_feature_names: bool = False,
        as_of: datetime | str | float | None = None,
        explain: bool = False,
    ) -> Features:
        """As `Client.get`."""
        body = _body(what, entities, full_feature_names, as_of, explain)
        attempts = self._attempts()
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.post(READ, content=body)
            except httpx.TransportError as error:
                outcome = error
            answer = attempts.judge(outcome)
            if isinstance(answer, Features):
                return answer
            await asyncio.sleep(answer)

    async def ready(self) -> bool:
        """True where every view can be read."""
        try:
            return (await self._http.get("/ready")).status_code == 200
        except httpx.TransportError:
            return False


READ = "/get-online-features"


def _body(
    what: str | Sequence[str],
    entities: Entities,
    full_feature_names: bool,
    as_of: datetime | str | float | None,
    explain: bool,
) -> bytes:
    body: dict[str, Any] = {
        "entities": {name: values if isinstance(values, list) else list(values) for name, values in entities.items()},
        "full_feature_names": full_feature_names,
    }
    body |= {"feature_service": what} if isinstance(what, str) else {"features": list(what)}
    if as_of is not None:
        body["as_of"] = as_of
    if explain:
        body["explain"] = True
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise RequestError(
            "an entity's value can't be sent", got=str(error), hint="send text, numbers or true/false"
        ) from None


def _pause(attempt: int, response: httpx.Response | None) -> float:
    """What the server says, within a bound; else longer each time, with chance in it so that clients spread."""
    if response is not None:
        named = str(response.headers.get("retry-after", ""))
        if named.isdigit():
            return min(float(named), RETRY_AFTER_MAX_S)
    return BACKOFF_S * float(2**attempt) * (0.5 + random.random())


def _features(response: httpx.Response) -> Features:
    answer = _json(response)
    if response.status_code != 200:
        error = answer.get("error")
        if not isinstance(error, dict):
            raise DataError("the server's answer is none", got=f"status {response.status_code}", hint="is it headrace?")
        kind = ERRORS.get(response.status_code, DataError)
        raise kind(
            str(error.get("fact")),
            where=str(error.get("where", "")),
            got=str(error.get("got", "")),
            hint=str(error.get("next", "")),
        )
    names = answer["metadata"]["feature_names"]
    beside = answer.get("headrace", {})
    results = answer["results"]
    return Features(
        columns={name: result["values"] for name, result in zip(names, results, strict=True)},
        statuses={name: result["statuses"] for name, result in zip(names, results, strict=True)},
        event_timestamps={
            name: result.get("event_timestamps", []) for name, result in zip(names, results, strict=True)
        },
        instants=beside.get("instants", []),
        ages_us=beside.get("ages_us", []),
        reasons={int(number): reason for number, reason in beside.get("reasons", {}).items()},
        explain=answer.get("explain", []),
    )


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise DataError(
            "the server did not answer in JSON", got=f"status {response.status_code}", hint="is it headrace's server?"
        )
    return answer


def _unreachable(url: str, error: httpx.TransportError) -> NotReady:
    got = str(error) or type(error).__name__
    return NotReady("the server does not answer", where=url, got=got, hint="is `headrace serve` running?")
