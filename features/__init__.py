"""What a feature means: the language in which views are declared. `from features import FeatureView, Mean, …`."""

from features.aggregations import (
    Count,
    DecayedMean,
    DecayedSum,
    First,
    Kurtosis,
    Last,
    Max,
    Mean,
    Min,
    Skew,
    StdDev,
    Sum,
    Variance,
)
from features.collections import (
    ApproxCountDistinct,
    BottomK,
    CountDistinct,
    FirstK,
    Histogram,
    LastK,
    MostFrequent,
    Quantile,
    TopK,
)
from features.derived import DerivedView, Request
from features.enriched import Enriched
from features.lag import Lag
from features.service import FeatureService
from features.source import Union
from features.udf import udf
from features.view import Entity, FeatureView, LatestView
from features.window import Calendar, Window

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
