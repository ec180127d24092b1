"""Comparing columns of values: to the bit, but for those that are defined within 1e-9 (DESIGN §2)."""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.plan import Cell, CellKind, Definitions, ServicePlan, ViewPlan

Bools = npt.NDArray[np.bool_]

TOLERANCE = 1e-9
WITHIN_TOLERANCE = (CellKind.MOMENTS, CellKind.MOMENTS4, CellKind.DECAYED)
"""Kinds of cells whose merge depends on its order in the last bits."""


def differs(one: pa.Array, other: pa.Array, exact: bool) -> Bools:
    """Row by row, whether two columns of one type differ; nulls are equal to nulls alone."""
    valid_one = pc.is_valid(one).to_numpy(zero_copy_only=False)
    valid_other = pc.is_valid(other).to_numpy(zero_copy_only=False)
    both = valid_one & valid_other
    different = valid_one != valid_other
    if pa.types.is_floating(one.type):
        a, b = (pc.fill_null(each, 0.0).to_numpy(zero_copy_only=False) for each in (one, other))
        if exact:
            unequal = a.view(np.int64) != b.view(np.int64)
        else:
            unequal = np.abs(a - b) > TOLERANCE * np.maximum(1.0, np.abs(a))
    elif pa.types.is_nested(one.type):
        equal = operator.eq if exact else _close
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        unequal = np.array([not equal(a, b) for a, b in pairs], np.bool_)
    else:
        unequal = pc.fill_null(pc.not_equal(one, other), False).to_numpy(zero_copy_only=False)
    result: Bools = different | (both & unequal)
    return result


def inexact_features(definitions: Definitions, service: ServicePlan) -> set[tuple[str, str]]:
    """The (view, feature) pairs of a service that are compared within 1e-9, those derived from such ones included."""
    found = {
        (view.name, feature.name)
        for view in definitions.views.values()
        for feature in view.features
        if _inexact(view, feature.cells)
    }
    for selection in service.selections:
        if selection.view in definitions.derived and found & set(definitions.derived[selection.view].uses):
            found |= {(selection.view, feature) for feature in selection.features}
    return found


def _inexact(view: ViewPlan, cells: tuple[int, ...]) -> bool:
    return any(_inexact_cell(view.cells[cell]) for cell in cells)


def _inexact_cell(cell: Cell) -> bool:
    return cell.kind in WITHIN_TOLERANCE or any(map(_inexact_cell, cell.inner))


def _close(one: object, other: object) -> bool:
    """Whether two values are equal, the numbers in them within the tolerance."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == other
