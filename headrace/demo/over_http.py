"""Vectors over HTTP, in the protocol of Feast's feature server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pandas as pd

from schemas.errors import NotReady, RequestError

SERVICE = "late_arrival"
TIMEOUT_S = 30.0
"""Far beyond what an answer takes: a busy machine is no failure of the demo."""
JOIN_KEYS = ("origin", "dest", "carrier", "tailnum")
REQUEST_COLUMNS = ("distance_miles",)


@dataclass(frozen=True)
class Answer:
    """Features by name (`view__feature`), a value for each entity, and each vector's instant (ISO 8601, UTC)."""

    features: dict[str, list[Any]]
    instants: list[str]


def entities_of(flights: pd.DataFrame) -> dict[str, list[Any]]:
    """The flights as a request asks for them: join keys and what it brings along."""
    return {name: flights[name].tolist() for name in (*JOIN_KEYS, *REQUEST_COLUMNS)}


def ask(client: httpx.Client, entities: Mapping[str, Sequence[Any]], features: Sequence[str] = ()) -> Answer:
    """The vectors of the service, or of `view:feature` references.

    Raises NotReady where the server says to come back, RequestError where it refuses.
    """
    what = {"features": list(features)} if features else {"feature_service": SERVICE}
    body = {**what, "entities": entities, "full_feature_names": True}
    response = client.post("/get-online-features", json=body)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise NotReady("the server has no true answer yet", got=response.text)
    if response.status_code != httpx.codes.OK:
        raise RequestError("the server refused a request", got=f"{response.status_code} {response.text}")
    answer = response.json()
    columns = zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    values = {name: column["values"] for name, column in columns if name not in entities}
    return Answer(values, answer["headrace"]["instants"])


def count_events(client: httpx.Client, flights: pd.DataFrame) -> int:
    """All events, as lifetime counts have them: departures over all carriers, arrivals over all routes."""
    carriers = {"carrier": sorted(flights.carrier.unique())}
    routes = flights[["origin", "dest"]].drop_duplicates()
    pairs = {"origin": routes.origin.tolist(), "dest": routes.dest.tolist()}
    departures = ask(client, carriers, ["carrier_delays:departures"]).features["carrier_delays__departures"]
    arrivals = ask(client, pairs, ["route_history:arrivals"]).features["route_history__arrivals"]
    return int(sum(departures) + sum(arrivals))
