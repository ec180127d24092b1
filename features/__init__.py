"""What a feature means: the language in which views are declared. `from features import FeatureView, Mean, …`."""

from features.aggregations import (
    ApproxCountDistinct,
    BottomK,
    Count,
    CountDistinct,
    DecayedMean,
    DecayedSum,
    First,
    FirstK,
    Histogram,
    Kurtosis,
    Last,
    LastK,
    Max,
    Mean,
    Min,
    MostFrequent,
    Quantile,
    Skew,
    StdDev,
    Sum,
    TopK,
    Variance,
)
from features.derived import DerivedView, Request
from features.lag import Lag
from features.service import FeatureService
from features.source import Enriched, Union
from features.udf import udf
from features.view import Entity, FeatureView, LatestView
from features.window import Calendar, Window
from schemas.event import Event

__all__ = [
    "ApproxCountDistinct",
    "BottomK",
    "Calendar",
    "Count",
    "CountDistinct",
    "DecayedMean",
    "DecayedSum",
    "DerivedView",
    "Enriched",
    "Entity",
    "Event",
    "FeatureService",
    "FeatureView",
    "First",
    "FirstK",
    "Histogram",
    "Kurtosis",
    "Lag",
    "Last",
    "LastK",
    "LatestView",
    "Max",
    "Mean",
    "Min",
    "MostFrequent",
    "Quantile",
    "Request",
    "Skew",
    "StdDev",
    "Sum",
    "TopK",
    "Union",
    "Variance",
    "Window",
    "udf",
]
