"""What a feature means: the language in which views are declared. `from features import FeatureView, Mean, …`."""

from features.aggregations import Count, First, Last, Max, Mean, Min, StdDev, Sum, Variance
from features.derived import DerivedView, Request
from features.service import FeatureService
from features.view import Entity, FeatureView
from features.window import Window

__all__ = [
    "Count",
    "DerivedView",
    "Entity",
    "FeatureService",
    "FeatureView",
    "First",
    "Last",
    "Max",
    "Mean",
    "Min",
    "Request",
    "StdDev",
    "Sum",
    "Variance",
    "Window",
]
