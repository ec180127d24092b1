"""A declaration is tried in one line, on the frames that people have."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features import Count, DerivedView, Entity, FeatureService, FeatureView, LatestView, Mean, Request, Union
from schemas.errors import DataError
from schemas.event import Event


class Ride(Event, topic="preview_rides", time="at", key=["driver"]):
    at: datetime
    driver: str
    city: str
    fare: float | None


class Rating(Event, topic="preview_ratings", time="given_at", key=["driver"]):
    given_at: datetime
    driver: str
    stars: int


START = datetime(2024, 5, 1, 12)
driver = Entity("driver")
rides = FeatureView(
    "preview_rides", entity=driver, source=Ride, features={"n_1h": Count(over="1h"), "fare": Mean("fare")}
)
latest = LatestView("preview_latest", entity=driver, source=Rating, fields=["stars"])
ratio = DerivedView(
    "preview_ratio",
    inputs=[rides, latest, Request(offer=float)],
    features={"better": "offer / preview_rides.fare", "stars": "preview_latest.stars + 1"},
)
service = FeatureService("preview_service", [rides, latest, ratio["better"]])
RIDES = pd.DataFrame(
    {
        "at": [START, START + timedelta(minutes=30), START + timedelta(hours=3)],
        "driver": ["ann", "ann", "bob"],
        "city": "x",
        "fare": [10.0, np.nan, 8.0],
    }
)
RATINGS = pa.table({"given_at": [START + timedelta(minutes=40)], "driver": ["ann"], "stars": [4]})


def test_a_view_on_a_pandas_frame() -> None:
    answer = rides.preview(RIDES)
    assert list(answer["driver"]) == ["ann", "bob"]
    assert list(answer["n_1h"]) == [0, 1]
    assert list(answer["fare"]) == [10.0, 8.0]
    assert answer["event_timestamp"][0] == START + timedelta(hours=3, microseconds=1)


def test_a_view_at_an_instant_on_arrow() -> None:
    answer = rides.preview(pa.Table.from_pandas(RIDES), at="2024-05-01T12:45:00")
    assert answer.select(["driver", "n_1h", "fare"]).to_pylist() == [
        {"driver": "ann", "n_1h": 2, "fare": 10.0},
        {"driver": "bob", "n_1h": 0, "fare": None},
    ]


def test_a_service_at_each_rows_instant() -> None:
    rows = pd.DataFrame(
        {
            "driver": ["ann", "ann", "eve"],
            "event_timestamp": [START, START + timedelta(hours=1), START],
            "offer": [20.0, 20.0, 1.0],
            "label": [1, 0, 1],
        }
    )
    answer = service.preview(rows, {Ride: RIDES, "Rating": RATINGS})
    assert list(answer["label"]) == [1, 0, 1]
    assert list(answer["preview_rides__n_1h"]) == [0, 2, 0]
    assert answer["preview_latest__stars"].tolist()[1] == 4
    assert answer["preview_ratio__better"].tolist()[1] == 2.0
    assert np.isnan(answer["preview_ratio__better"].tolist()[0])


def test_composite_keys_and_unions() -> None:
    both = FeatureView(
        "preview_both",
        entities=[driver, Entity("kind")],
        source=Union(
            {Ride: {"driver": "driver", "kind": "'ride:' || city"}, Rating: {"driver": "driver", "kind": "'rating'"}}
        ),
        features={"n": Count()},
    )
    answer = both.preview({Ride: RIDES, Rating: RATINGS})
    assert sorted(zip(answer["driver"], answer["kind"], answer["n"], strict=True)) == [
        ("ann", "rating", 1),
        ("ann", "ride:x", 2),
        ("bob", "ride:x", 1),
    ]


def test_frames_that_do_not_fit_are_explained() -> None:
    with pytest.raises(DataError, match="a column is missing.*add 'driver'"):
        rides.preview(RIDES.drop(columns=["driver"]))
    with pytest.raises(DataError, match="events are missing.*Rating"):
        service.preview(pd.DataFrame({"driver": ["a"], "event_timestamp": [START], "offer": [1.0]}), {Ride: RIDES})
    with pytest.raises(DataError, match="a pandas, Polars or Arrow frame"):
        rides.preview([1, 2])


def test_a_notebook_shows_declarations_as_tables() -> None:
    for shown in (rides._repr_html_(), ratio._repr_html_(), service._repr_html_()):
        assert "<table>" in shown
    assert "Mean(&#x27;fare&#x27;)" in rides._repr_html_()


def test_on_polars_frames() -> None:
    """Polars is no dependency of headrace (180 MB for one test): this runs where it is installed."""
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    events = polars.from_pandas(RIDES)
    answer = rides.preview(events)
    assert isinstance(answer, polars.DataFrame)
    assert answer["n_1h"].to_list() == [0, 1]
    rows = polars.DataFrame(
        {"driver": ["ann", None], "event_timestamp": [START + timedelta(hours=1)] * 2, "offer": 3.0}
    )
    frames = {Ride: events, "Rating": polars.DataFrame(RATINGS.to_pydict())}
    with_features = service.preview(rows, frames)
    assert isinstance(with_features, polars.DataFrame)
    assert with_features["preview_latest__stars"].to_list() == [4, None]
    assert with_features["preview_rides__fare"].to_list() == [10.0, None]
