"""docs/aggregations.md is what the code says."""

from __future__ import annotations

from pathlib import Path

from features import reference

DOC = Path(__file__).parents[3] / "docs" / "aggregations.md"


def test_the_table_is_current() -> None:
    assert DOC.read_text() == reference.table(), f"run python -m features.reference > {DOC.name} in docs/"


def test_every_aggregation_is_in_it() -> None:
    assert reference.documented() == reference.existing()
