"""From the fields of a flat record, read for many messages at once, to the columns of an event: what fits, and checks.

Only what says the same of a whole column as of each value is done here; anything else is NotPlain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import Enum
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args, get_origin

import annotated_types
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AliasPath
from pydantic.fields import FieldInfo

from schemas.event import Event, arrow_schema
from schemas.formats.fast import checked_alike, has_own_code, keys_of, opened
from schemas.formats.run import Rows, Run
from schemas.instants import EPOCH_MS_MAX, EPOCH_MS_MIN, SECONDS_MAX

_FITS = {
    ("int64", int): pa.int64(),
    ("int64", float): pa.float64(),
    ("int64", datetime): pa.timestamp("us"),
    ("float64", float): pa.float64(),
    ("bool", bool): pa.bool_(),
    ("string", str): pa.string(),
    ("bytes", bytes): pa.binary(),
    ("timestamp", datetime): pa.timestamp("us"),
    ("date", date): pa.date32(),
}
"""What a column of a Python type takes, without a look at single values."""
_CHECKS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    annotated_types.Gt: ("gt", pc.greater),
    annotated_types.Ge: ("ge", pc.greater_equal),
    annotated_types.Lt: ("lt", pc.less),
    annotated_types.Le: ("le", pc.less_equal),
    annotated_types.MinLen: ("min_length", lambda array, n: pc.greater_equal(pc.utf8_length(array), n)),
    annotated_types.MaxLen: ("max_length", lambda array, n: pc.less_equal(pc.utf8_length(array), n)),
}

_DEFAULTS = (bool, int, float, str, bytes, datetime, date)


Check = Callable[[pa.Array], Any]
"""True for each value that a constraint lets pass; null for null."""


class NotPlain(Exception):
    """A schema or an event that is left to the readers of single messages."""


class Target(NamedTuple):
    """A column of the event: from which field it comes, or which default holds; and what is checked."""

    source: str | None
    default: Any
    nullable: bool
    type: pa.DataType
    checks: tuple[Check, ...]

    def column(self, read: Mapping[str, pa.Array], run: Run, *, null_is_absent: bool = False) -> pa.Array:
        """The column from what was read of the fields; messages whose value it doesn't take become bad.

        `null_is_absent`: where nothing was read the default holds, if there is one.
        """
        rows = run.all_rows()
        if self.source is None:
            return pa.array([self.default], self.type).take(pa.array(np.zeros(len(rows), np.int8)))
        array = read[self.source]
        if self.type == pa.timestamp("us") and array.type == pa.int64():
            array = _epochs(array, run, rows)
        array = array.cast(self.type, safe=False)
        if null_is_absent and self.default is not None:
            array = pc.fill_null(array, pa.scalar(self.default, self.type))
        if not self.nullable:
            run.refuse(rows, is_true(array.is_null()))
        if pa.types.is_floating(array.type):
            run.refuse(rows, ~is_true(pc.fill_null(pc.is_finite(array), True)))
            array = pc.add(array, 0.0)
        for check in self.checks:
            run.refuse(rows, ~is_true(pc.fill_null(check(array), True)))
        return array


def targets_of(event: type[Event], kinds: Mapping[str, str]) -> tuple[Target, ...]:
    """The event's columns, made of fields of these kinds. Raises NotPlain where a value needs a look of its own."""
    if has_own_code(event):
        raise NotPlain(event)
    types = arrow_schema(event.spec())
    return tuple(_target(name, field, types.field(name), kinds) for name, field in event.model_fields.items())


def _target(name: str, field: FieldInfo, arrow: pa.Field, kinds: Mapping[str, str]) -> Target:
    type_, metadata, nullable = opened(field)
    checks: list[Check] = []
    if get_origin(type_) is Literal or (isinstance(type_, type) and issubclass(type_, Enum)):
        values = get_args(type_) if get_origin(type_) is Literal else tuple(each.value for each in type_)
        checks.append(_is_one_of(pa.array(values, arrow.type)))
        type_ = type(values[0])
    if not checked_alike(type_, metadata) or any(type(each) not in _CHECKS for each in metadata):
        raise NotPlain(name)
    checks += [_bound(each) for each in metadata]
    source = next((key for key in _keys(name, field) if key in kinds), None)
    if source is None:
        if field.is_required():
            raise NotPlain(name)
        return Target(None, _default(name, field), nullable, arrow.type, ())
    if kinds[source] != "null" and _FITS.get((kinds[source], type_)) != arrow.type:
        raise NotPlain(name)
    default = None if field.is_required() else _default(name, field)
    return Target(source, default, nullable, arrow.type, tuple(checks))


def _default(name: str, field: FieldInfo) -> Any:
    default = field.default.value if isinstance(field.default, Enum) else field.default
    if default is not None and not isinstance(default, _DEFAULTS):
        raise NotPlain(name)
    if isinstance(default, float) and not isfinite(default):
        raise NotPlain(name)
    # As everywhere: −0.0 becomes 0.0.
    return default + 0.0 if isinstance(default, float) else default


def _keys(name: str, field: FieldInfo) -> list[str]:
    keys = keys_of(name, field)
    if any(isinstance(key, AliasPath) for key in keys):
        raise NotPlain(name)
    return [str(key) for key in keys]


def _bound(metadata: Any) -> Check:
    attribute, compare = _CHECKS[type(metadata)]
    bound = getattr(metadata, attribute)
    return lambda array: compare(array, bound)


def _is_one_of(values: pa.Array) -> Check:
    return lambda array: pc.or_kleene(pc.is_in(array, values), array.is_null())


def is_true(array: Any) -> npt.NDArray[np.bool_]:
    """An array of truths, without nulls, for NumPy."""
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _epochs(array: pa.Array, run: Run, rows: Rows) -> pa.Array:
    """Epoch numbers, in milliseconds or seconds: pydantic's rule."""
    epochs = pc.fill_null(array, 0).to_numpy()
    outside = (epochs < EPOCH_MS_MIN) | (epochs > EPOCH_MS_MAX)
    run.refuse(rows, outside)
    epochs = np.where(outside, 0, epochs)
    microseconds = epochs * np.where(np.abs(epochs) > SECONDS_MAX, 1_000, 1_000_000)
    return pa.array(microseconds, mask=is_true(array.is_null()))
