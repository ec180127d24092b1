"""The table of capabilities is what docs/runners.md shows and what the command line offers."""

from __future__ import annotations

from pathlib import Path

from headrace.commands.stream import Runner
from stream.capabilities import CAPABILITIES, Capability

DOCUMENT = Path(__file__).parents[3] / "docs" / "runners.md"


def test_the_document_shows_the_table() -> None:
    lines = ["| | " + " | ".join(CAPABILITIES) + " |", "|" + "---|" * (len(CAPABILITIES) + 1)]
    for capability in Capability:
        cells = ["yes" if each.can(capability) else f"no: {each.lacks[capability]}" for each in CAPABILITIES.values()]
        lines.append(f"| {capability.value} | " + " | ".join(cells) + " |")
    assert "\n".join(lines) in DOCUMENT.read_text(), "write this table into docs/runners.md:\n" + "\n".join(lines)


def test_the_command_line_offers_every_runner() -> None:
    assert [each.value for each in Runner] == list(CAPABILITIES)
