"""Every cell has every lowering. A failure names the file to edit."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest

from features import deltas, lists, records, sql, states
from features.cells import ENTRY_KINDS, WORDS, layout
from features.plan import Cell, CellKind
from stream import script
from tests.laws.cells import SUBJECTS


def _has_layout(kind: CellKind) -> bool:
    try:
        return bool(layout(Cell(kind, 0, 1), "int64"))
    except KeyError:
        return False


FIXED: dict[str, Container[Any]] = {
    "features/sql.py: SQL": sql.SQL,
    "features/deltas.py: WORDS_OF": deltas.WORDS_OF,
    "features/states.py: ZEROS": states.ZEROS,
    "features/states.py: MERGES or SUMS": states.MERGES.keys() | states.SUMS | {CellKind.DECAYED},
    "features/records.py: DECODE": records.DECODE,
    "stream/script.py: FIXED": script.FIXED,
    "tests/laws/cells.py: SUBJECTS": SUBJECTS,
}
VARIABLE: dict[str, Container[Any]] = {
    "features/sql.py: SQL": sql.SQL,
    "features/states.py: ZEROS": states.ZEROS,
    "features/states.py: MERGES": states.MERGES,
    "stream/script.py: VARIABLE": script.VARIABLE,
    "tests/laws/cells.py: SUBJECTS": SUBJECTS,
}
OUTER = {CellKind.BY, CellKind.ELEMENTS}
"""Cells of cells: they are finished by what is inside."""
ENTRIES: dict[str, Container[Any]] = {
    "features/cells.py: layout()": {kind for kind in CellKind if _has_layout(kind)},
    "features/lists.py: SUMMARIES": lists.SUMMARIES.keys() | OUTER,
    "tests/laws/cells.py: SUBJECTS": SUBJECTS,
}


@pytest.mark.parametrize("kind", list(CellKind))
def test_a_cell_has_every_lowering(kind: CellKind) -> None:
    lowerings = FIXED if kind in WORDS else ENTRIES if kind in ENTRY_KINDS else VARIABLE
    missing = [place for place, table in lowerings.items() if kind not in table]
    assert not missing, f"the cell {kind.value!r} has no lowering in {'; '.join(missing)}: add it there"
