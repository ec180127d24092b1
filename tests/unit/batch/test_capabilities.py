"""The table of the engines is what docs/runners.md shows, what the command line offers, and what `train` refuses by."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.capabilities import ENGINES, Capability, check_engine
from headrace.commands.train import Engine
from schemas.errors import RequestError

DOCUMENT = Path(__file__).parents[3] / "docs" / "runners.md"


def test_the_document_shows_the_table() -> None:
    lines = ["| | " + " | ".join(ENGINES) + " |", "|" + "---|" * (len(ENGINES) + 1)]
    for capability in Capability:
        cells = ["yes" if capability not in lacks else f"no: {lacks[capability]}" for lacks in ENGINES.values()]
        lines.append(f"| {capability.value} | " + " | ".join(cells) + " |")
    assert "\n".join(lines) in DOCUMENT.read_text(), "write this table into docs/runners.md:\n" + "\n".join(lines)


def test_the_command_line_offers_every_engine() -> None:
    assert [each.value for each in Engine] == list(ENGINES)


def test_what_an_engine_lacks_is_refused() -> None:
    check_engine("local", "arrival")
    check_engine("spark", "event")
    with pytest.raises(RequestError, match="--engine local"):
        check_engine("spark", "arrival")
