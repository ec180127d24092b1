"""The loop over a view's records, written for its plan: a line for each cell of each window.

`stream/script.py` does the same for the merge in Redis. The source is made of a plan's numbers alone: no name or text
of a user's stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from features.cells import FIRST_ZERO_TIME, FRACTION_BITS, INT64_MAX, INT64_MIN, LAST_ZERO_TIME
from features.plan import CellKind, Feature, Finish, ViewPlan

FORMATS: dict[CellKind, str] = {
    CellKind.COUNT: "q",
    CellKind.SUM_INT: "Qq",
    CellKind.SUM_FIXED: "QQq",
    CellKind.MIN_INT: "q",
    CellKind.MAX_INT: "q",
    CellKind.MIN_FLOAT: "d",
    CellKind.MAX_FLOAT: "d",
    CellKind.FIRST: "qqq",
    CellKind.LAST: "qqq",
}
"""The words of a cell for `struct`; those of FIRST and LAST end with their value, in its own type."""
ZEROS: dict[CellKind, tuple[str, ...]] = {
    CellKind.COUNT: ("0",),
    CellKind.SUM_INT: ("0", "0"),
    CellKind.SUM_FIXED: ("0", "0", "0"),
    CellKind.MIN_INT: (str(INT64_MAX),),
    CellKind.MAX_INT: (str(INT64_MIN),),
    CellKind.MIN_FLOAT: ("INFINITY",),
    CellKind.MAX_FLOAT: ("-INFINITY",),
    CellKind.FIRST: (str(FIRST_ZERO_TIME), "0", "0", "0"),
    CellKind.LAST: (str(LAST_ZERO_TIME), "0", "0", "0"),
}
"""What a merge begins with, for each value of a cell."""

Loop = Callable[[Iterable[tuple[Any, ...]], list[tuple[int, int]], int], tuple[Any, ...]]


def loop_source(plan: ViewPlan, features: Sequence[Feature]) -> str:
    """The source of `read(records, windows, instant)`: the features' values from a row's records, None for null."""
    windows = list(dict.fromkeys(feature.window for feature in features))
    cells = sorted({cell for feature in features for cell in feature.cells})
    types = {cell: feature.type for feature in features for cell in feature.cells}
    names = {cell: [f"c{cell}_{n}" for n in range(_length(plan.cells[cell].kind))] for cell in cells}
    lines = ["def read(records, windows, instant):"]
    for number in range(len(windows)):
        lines.append(f"    first{number}, last{number} = windows[{number}]")
    needed = {
        number: sorted({cell for feature in features if feature.window == window for cell in feature.cells})
        for number, window in enumerate(windows)
    }
    for number, inside in needed.items():
        for cell in inside:
            for n, zero in enumerate(ZEROS[plan.cells[cell].kind]):
                lines.append(f"    w{number}_{names[cell][n]} = {zero}")
    lines.append(f"    for {', '.join(['key', *(name for cell in cells for name in names[cell])])}, in records:")
    for number, inside in needed.items():
        lines.append(f"        if first{number} <= key < last{number}:")
        for cell in inside:
            lines += [f"            {line}" for line in _merge(plan.cells[cell].kind, names[cell], f"w{number}_")]
    values = []
    for feature in features:
        at = f"w{windows.index(feature.window)}_"
        parts = [[at + name for name in names[cell]] for cell in feature.cells]
        if feature.finish is Finish.LATEST:
            values.append(_latest(feature, parts))
            continue
        values.append(FINISHES[feature.finish](plan.cells[feature.cells[0]].kind, types[feature.cells[0]], parts))
    return "\n".join([*lines, f"    return ({', '.join(values)},)", ""])


def _length(kind: CellKind) -> int:
    return len(ZEROS[kind])


def _merge(kind: CellKind, names: list[str], into: str) -> list[str]:
    """The lines that merge a record's cell into a window's."""
    if kind in (CellKind.COUNT, CellKind.SUM_INT, CellKind.SUM_FIXED):
        return [f"{into}{name} += {name}" for name in names]
    if kind in (CellKind.MIN_INT, CellKind.MIN_FLOAT, CellKind.MAX_INT, CellKind.MAX_FLOAT):
        better = "<" if kind in (CellKind.MIN_INT, CellKind.MIN_FLOAT) else ">"
        return [f"if {names[0]} {better} {into}{names[0]}: {into}{names[0]} = {names[0]}"]
    better = "<" if kind is CellKind.FIRST else ">"
    order, stored = ", ".join(names[:3]), ", ".join(into + name for name in names[:3])
    both = ", ".join(into + name for name in names)
    return [f"if ({order}) {better} ({stored}): {both} = {', '.join(names)}"]


def _total(words: list[str]) -> str:
    return " + ".join(f"({word} << {64 * n})" if n else word for n, word in enumerate(words))


def _count(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    return cells[0][0]


def _sum_int(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    return f"max({INT64_MIN}, min({INT64_MAX}, {_total(cells[0])})) if {cells[1][0]} else None"


def _sum_fixed(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    # Python divides integers with one rounding, half to even.
    return f"({_total(cells[0])}) / {1 << FRACTION_BITS} if {cells[1][0]} else None"


def _mean_int(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    return f"float({_total(cells[0])}) / {cells[1][0]} if {cells[1][0]} else None"


def _mean_fixed(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    return f"({_total(cells[0])}) / {1 << FRACTION_BITS} / {cells[1][0]} if {cells[1][0]} else None"


def _value(kind: CellKind, type_name: str, cells: list[list[str]]) -> str:
    value = cells[0][-1] if type_name != "bool" else f"{cells[0][-1]} != 0"
    if kind is CellKind.FIRST:
        return f"{value} if {cells[0][0]} != {FIRST_ZERO_TIME} else None"
    if kind is CellKind.LAST:
        return f"{value} if {cells[0][0]} != {LAST_ZERO_TIME} else None"
    return f"{value} if {cells[1][0]} else None"


def _latest(feature: Feature, cells: list[list[str]]) -> str:
    (newest, found), ttl_us = cells, feature.parameters.get("ttl_us")
    same = f"({', '.join(newest[:3])}) == ({', '.join(found[:3])})"
    there = f"{same} and {found[0]} != {LAST_ZERO_TIME}"
    young = there if ttl_us is None else f"{there} and {newest[0]} >= instant - {int(ttl_us)}"
    return f"{found[-1]}{' != 0' if feature.type == 'bool' else ''} if {young} else None"


FINISHES: dict[Finish, Callable[[CellKind, str, list[list[str]]], str]] = {
    Finish.COUNT: _count,
    Finish.SUM_INT: _sum_int,
    Finish.SUM_FIXED: _sum_fixed,
    Finish.MEAN_INT: _mean_int,
    Finish.MEAN_FIXED: _mean_fixed,
    Finish.VALUE: _value,
}
"""The expression of a value over the merged cells' names."""


@lru_cache(maxsize=1024)
def compiled(source: str) -> Loop:
    """The function in a source of `loop_source`."""
    scope: dict[str, Any] = {"INFINITY": float("inf")}
    exec(compile(source, "<read of a view>", "exec"), scope)
    loop: Loop = scope["read"]
    return loop
