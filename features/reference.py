"""The table of aggregations, as the code has them: docs/aggregations.md is this, and a test holds it so."""

from __future__ import annotations

import inspect
from typing import NamedTuple

from features import aggregations, collections
from features.aggregation import Aggregation
from features.cells import WORDS, is_entries, layout
from features.plan import Cell, CellKind
from features.sketches import BUCKETS_MAX, KEYS_MAX, REGISTER_BITS
from schemas.row import WORD_BYTES


class Example(NamedTuple):
    """How an aggregation is written, and over which type of input."""

    text: str
    aggregation: Aggregation
    type: str | None


EXAMPLES = (
    Example('Count("x")', aggregations.Count("x"), "float64"),
    Example('Sum("x")', aggregations.Sum("x"), "float64"),
    Example('Sum("n")', aggregations.Sum("n"), "int64"),
    Example('Mean("x")', aggregations.Mean("x"), "float64"),
    Example('Min("x")', aggregations.Min("x"), "float64"),
    Example('Max("x")', aggregations.Max("x"), "float64"),
    Example('Max("text")', aggregations.Max("text"), "string"),
    Example('First("x")', aggregations.First("x"), "float64"),
    Example('Last("x")', aggregations.Last("x"), "float64"),
    Example('Last("text")', aggregations.Last("text"), "string"),
    Example('Variance("x")', aggregations.Variance("x"), "float64"),
    Example('StdDev("x")', aggregations.StdDev("x"), "float64"),
    Example('Skew("x")', aggregations.Skew("x"), "float64"),
    Example('Kurtosis("x")', aggregations.Kurtosis("x"), "float64"),
    Example('DecayedSum("x", half_life="6h")', aggregations.DecayedSum("x", "6h"), "float64"),
    Example('DecayedMean("x", half_life="6h")', aggregations.DecayedMean("x", "6h"), "float64"),
    Example('FirstK("x", 5)', collections.FirstK("x", 5), "float64"),
    Example('LastK("x", 5)', collections.LastK("x", 5), "float64"),
    Example('LastK("x", 5, distinct=True)', collections.LastK("x", 5, distinct=True), "float64"),
    Example('TopK("x", 5)', collections.TopK("x", 5), "float64"),
    Example('BottomK("x", 5)', collections.BottomK("x", 5), "float64"),
    Example('MostFrequent("text", 5)', collections.MostFrequent("text", 5), "string"),
    Example('CountDistinct("text")', collections.CountDistinct("text"), "string"),
    Example('ApproxCountDistinct("text")', collections.ApproxCountDistinct("text"), "string"),
    Example('Quantile("x", 0.9)', collections.Quantile("x", 0.9), "float64"),
    Example('Histogram("x", [0, 15, 60])', collections.Histogram("x", [0, 15, 60]), "float64"),
)
EXACT = "exact to the bit"
ERRORS = {
    CellKind.MOMENTS: "within 1e-9 · max(1, abs(v))",
    CellKind.MOMENTS4: "within 1e-9 · max(1, abs(v))",
    CellKind.DECAYED: "within 1e-9 of the sum of abs(terms)",
    CellKind.FREQUENCIES: f"exact up to {KEYS_MAX:,} distinct values in a tile, then INVALID",
    CellKind.DISTINCT: "exact below its limit, there 'at least'",
    CellKind.REGISTERS: f"standard error {1.04 / 2 ** (REGISTER_BITS / 2):.1%}",
    CellKind.BUCKETS: "relative error 1 % of the value at the rank",
}
"""How near the answer of an aggregation with such a cell comes; of all others it is exact."""
MOST = {CellKind.REGISTERS: 1 << REGISTER_BITS, CellKind.BUCKETS: 2 * BUCKETS_MAX + 1, CellKind.BINS: 1_001}


def table() -> str:
    """The table in Markdown."""
    lines = [
        "# Aggregations",
        "",
        "*Made from the code by `python -m features.reference`; a test holds it current.*",
        "",
        "Every one takes `over=` (a duration, `Window`, `Calendar`; none: the lifetime), `where=` and `by=` (a map of",
        "values, at most 256 keys). Bytes are those of one tile of one entity; a view shares cells between features.",
        "",
        "| aggregation | value | over nothing | cells | where | bytes a tile | error |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(example) for example in EXAMPLES)]) + "\n"


def documented() -> set[type[Aggregation]]:
    """The aggregations that the table has."""
    return {type(example.aggregation) for example in EXAMPLES}


def existing() -> set[type[Aggregation]]:
    """The aggregations that the language has."""
    found = set()
    for module in (aggregations, collections):
        for name, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Aggregation) and value.__module__ == module.__name__ and not name.startswith("_"):
                found.add(value)
    return found


def _row(example: Example) -> str:
    composed = example.aggregation.compose(example.type)
    cells = [Cell(part.kind, 0, part.argument, (), part.edges) for part in composed.cells]
    empty = "0" if composed.finish.value in ("count", "count_distinct") else "null"
    where = "row" if all(cell.kind in WORDS for cell in cells) else "HASH beside the row"
    error = next((ERRORS[cell.kind] for cell in cells if cell.kind in ERRORS), EXACT)
    names = ", ".join(cell.kind.value for cell in cells)
    size = " + ".join(_size(cell, example.type or "") for cell in cells)
    return f"| `{example.text}` | {composed.type} | {empty} | {names} | {where} | {size} | {error} |"


def _size(cell: Cell, type_name: str) -> str:
    if cell.kind in WORDS:
        return str(WORDS[cell.kind] * WORD_BYTES)
    if not is_entries(cell):
        return f"{4 + (1 if cell.kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES) else 24)} + the value's"
    shape = layout(cell, type_name)
    key = str(shape.key_bytes) if shape.key_bytes >= 0 else "(4 + the value's)"
    most = len(cell.edges) + 1 if cell.kind is CellKind.BINS else MOST.get(cell.kind, shape.most)
    return f"up to {most:,} · ({key} + {max(shape.payload_bytes, 0)})"


if __name__ == "__main__":
    print(table(), end="")
