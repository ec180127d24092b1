"""The names that definitions are written against. Adding one is a decision; taking one away breaks somebody."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "features": {
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
    },
    "schemas": {"Event"},
    "serving": {"AsyncClient", "Client", "Features"},
}


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == NAMES[package]
    for name in module.__all__:
        assert getattr(module, name) is not None
