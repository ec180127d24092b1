"""Every cell has every lowering. A failure names the file to edit."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest

from features import deltas, records, sql, states
from features.cells import WORDS
from features.plan import CellKind
from stream import script
from tests.laws.cells import SUBJECTS

FIXED: dict[str, Container[Any]] = {
    "features/sql.py: SQL": sql.SQL,
    "features/deltas.py: WORDS_OF": deltas.WORDS_OF,
    "features/states.py: ZEROS": states.ZEROS,
    "features/states.py: MERGES or SUMS": states.MERGES.keys() | states.SUMS,
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


@pytest.mark.parametrize("kind", list(CellKind))
def test_a_cell_has_every_lowering(kind: CellKind) -> None:
    lowerings = FIXED if kind in WORDS else VARIABLE
    missing = [place for place, table in lowerings.items() if kind not in table]
    assert not missing, f"the cell {kind.value!r} has no lowering in {'; '.join(missing)}: add it there"
