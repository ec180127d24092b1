"""Events -> Arrow, a column at a time; and which of them hold a value that no column takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event import Event, arrow_schema
from schemas.rejection import DETAIL_CHARACTERS_MAX

SEARCHED_ONE_BY_ONE = 8
"""Of so few values halving finds nothing sooner, and where most are bad it tries each of them twice."""
FITS_NOT = (pa.ArrowException, OverflowError, ValueError, TypeError)
"""What Arrow raises for a value that its type doesn't hold."""


class Misfit(NamedTuple):
    """What no column holds: an integer beyond 64 bits, an infinity, a decimal with too many digits."""

    detail: str
    path: str


class Columns(NamedTuple):
    """A column for each of the event's, as long as the events; and what fits not, by the event's index."""

    arrays: list[pa.Array]
    misfits: dict[int, Misfit]


class ColumnBuilder:
    """Makes Arrow columns of one type's events."""

    def __init__(self, event: type[Event]) -> None:
        self._columns = [
            (field.name, field.type, _opener(event.model_fields[field.name].annotation))
            for field in arrow_schema(event.spec())
        ]

    def build(self, events: Sequence[Any], lists: Mapping[str, list[Any] | pa.Array]) -> Columns:
        """`lists` holds the values of columns that aren't taken from the events. A misfit's values mean nothing."""
        arrays: list[pa.Array] = []
        misfits: dict[int, Misfit] = {}
        for name, type_, opened in self._columns:
            values = lists[name] if name in lists else list(map(attrgetter(name), events))
            array = _array(name, type_, values if opened is None else list(map(opened, values)), misfits)
            _find_infinite(name, array, misfits)
            arrays.append(_without_negative_zero(array))
        return Columns(arrays, misfits)


def _array(name: str, type_: pa.DataType, values: list[Any] | pa.Array, misfits: dict[int, Misfit]) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, type_)
    except FITS_NOT:
        found = _misfits(values, type_)
    for index, error in found.items():
        misfits.setdefault(index, Misfit(str(error)[:DETAIL_CHARACTERS_MAX], name))
    return pa.array([None if index in found else value for index, value in enumerate(values)], type_)


def _misfits(values: list[Any], type_: pa.DataType) -> dict[int, Exception]:
    """Which values Arrow refuses, by halving: one among 50,000 costs 30 arrays, not 50,000."""
    found: dict[int, Exception] = {}
    parts = [(0, len(values))]
    while parts:
        start, end = parts.pop()
        try:
            pa.array(values[start:end], type_)
        except FITS_NOT as error:
            if end - start == 1:
                found[start] = error
            else:
                step = 1 if end - start <= SEARCHED_ONE_BY_ONE else (end - start + 1) // 2
                parts += [(at, min(at + step, end)) for at in range(start, end, step)]
    return found


def _find_infinite(name: str, array: pa.Array, misfits: dict[int, Misfit]) -> None:
    """NaN and infinities: JSON has none, and where there are some, the fast path does not see them."""
    floats = _floats(array)
    if floats is None or pc.all(pc.is_finite(floats)).as_py() is not False:
        return
    if floats is array:
        for index in np.flatnonzero(_is_infinite(floats)).tolist():
            misfits.setdefault(index, Misfit("Input should be a finite number", name))
        return
    offsets = array.offsets.to_numpy()
    for at in np.flatnonzero(_is_infinite(floats)).tolist():
        index = int(np.searchsorted(offsets, at, side="right")) - 1
        inside = array.keys[at].as_py() if pa.types.is_map(array.type) else at - int(offsets[index])
        path = f"{name}.{inside}" if isinstance(inside, str) else f"{name}[{inside}]"
        misfits.setdefault(index, Misfit("Input should be a finite number", path))


def _is_infinite(floats: pa.Array) -> npt.NDArray[np.bool_]:
    finite = pc.fill_null(pc.is_finite(floats), True)
    return ~finite.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _floats(array: pa.Array) -> pa.Array | None:
    """The doubles of a column: its own, or those inside of lists or maps."""
    if pa.types.is_floating(array.type):
        return array
    if pa.types.is_list(array.type) and pa.types.is_floating(array.type.value_type):
        return array.values
    if pa.types.is_map(array.type) and pa.types.is_floating(array.type.item_type):
        return array.items
    return None


def _without_negative_zero(array: pa.Array) -> pa.Array:
    """−0.0 becomes 0.0 at the door, inside lists and maps too."""
    floats = _floats(array)
    if floats is None:
        return array
    zeroed, type_ = pc.add(floats, 0.0), array.type
    if floats is array:
        return zeroed
    if pa.types.is_list(type_):
        return pa.ListArray.from_arrays(array.offsets, zeroed, type=type_, mask=pc.is_null(array))
    return pa.MapArray.from_arrays(array.offsets, array.keys, zeroed, type=type_, mask=pc.is_null(array))


def _opener(annotation: Any) -> Callable[[Any], Any] | None:
    """What takes the value out of Enum members and UUIDs, in lists and maps too; None where there are none to be."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _opener(inner[0])
    if origin in (Union, UnionType):
        openers = [opener for each in inner if (opener := _opener(each)) is not None]
        return openers[0] if openers else None
    if origin in (list, dict):
        openers_inside = [_opener(each) for each in inner]
        return _inside(origin, openers_inside) if any(openers_inside) else None
    if annotation is UUID:
        return lambda value: None if value is None else str(value)
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return (lambda value: value.value if isinstance(value, Enum) else value) if is_enum else None


def _inside(origin: type, openers: list[Callable[[Any], Any] | None]) -> Callable[[Any], Any]:
    first, *others = (opener or (lambda value: value) for opener in openers)
    if origin is list:
        return lambda values: values if values is None else [first(value) for value in values]
    (item,) = others
    return lambda values: values if values is None else {first(k): item(v) for k, v in values.items()}
