"""Python where SQL cannot: functions over Arrow arrays that stand where an expression may.

    @udf(returns=float)
    def speed(distance_miles, air_time_min):
        return pc.divide(distance_miles, pc.divide(air_time_min, 60))

A udf takes one Arrow array a parameter, named like the columns it reads, and returns an array (or a NumPy array, or a
list) of the same length. It must treat each row alone; an error in a row is a null. It is never pickled: a plan names
it by the hash of its source, and a process that folds or trains imports the same definitions. A DerivedView takes none:
servers compute it while a model waits, and they run no Python of a project.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from features.errors import DataError, DefinitionError
from features.expression import Bound, quote
from features.place import caller, check_name
from schemas.types import TypeNotSupported, arrow_type, from_annotation

Function: TypeAlias = Callable[..., Any]

PREFIX = "headrace_udf_"
_NAME = re.compile(PREFIX + "[0-9a-f]{32}")


class Udf:
    """A declared function: its columns, its type, and the name under which SQL calls it."""

    def __init__(self, function: Function, returns: object) -> None:
        self.name = check_name("a udf", getattr(function, "__name__", None))
        parameters = inspect.signature(function).parameters.values()
        if not parameters or any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
            raise DefinitionError(
                "a udf takes the columns that it reads, by name", got=f"{self.name}{_shown(function)}"
            )
        self.columns = tuple(parameter.name for parameter in parameters)
        try:
            self.type = from_annotation(returns)[0]
        except TypeNotSupported as error:
            raise DefinitionError(
                "returns= is a type that headrace keeps", where=self.name, got=repr(returns), hint=str(error)
            ) from None
        self.function = function
        self._meaning = f"{self.columns}{self.type}{_source(function)}"

    def __call__(self, *arrays: Any) -> Any:
        return self.function(*arrays)

    def __repr__(self) -> str:
        return self.name

    def bind(self, columns: Mapping[str, str]) -> Bound:
        """The call over a view's columns. Raises DefinitionError for a parameter that names none of them."""
        for column in self.columns:
            if column not in columns:
                raise DefinitionError(
                    f"udf {self.name} reads a column that the source does not have",
                    got=repr(column),
                    hint=f"there are: {', '.join(columns)}",
                )
        types = tuple(columns[column] for column in self.columns)
        digest = hashlib.sha256(f"{self._meaning}{types}".encode()).hexdigest()[:32]
        DECLARED[PREFIX + digest] = Call(self, types)
        called = ", ".join(quote(column) for column in self.columns)
        used = frozenset((column,) for column in self.columns)
        return Bound(f"{PREFIX}{digest}({called})", self.type, used)

    def for_duckdb(self) -> Callable[..., pa.Array]:
        """`apply`, as DuckDB calls it: it counts the parameters of the signature."""

        def call(*columns: pa.ChunkedArray) -> pa.Array:
            return self.apply([column.combine_chunks() for column in columns])

        signature = inspect.signature(self.function)
        setattr(call, "__signature__", signature.replace(return_annotation=inspect.Signature.empty))  # noqa: B010
        return call

    def apply(self, arrays: Sequence[pa.Array]) -> pa.Array:
        """The values of some rows; where the function fails on them, row by row, and null for those that fail alone."""
        count = len(arrays[0])
        try:
            return self._values(arrays, count)
        except Exception:
            return pa.concat_arrays([self._one(arrays, row) for row in range(count)])

    def _one(self, arrays: Sequence[pa.Array], row: int) -> pa.Array:
        try:
            return self._values([array.slice(row, 1) for array in arrays], 1)
        except Exception:
            return pa.nulls(1, arrow_type(self.type))

    def _values(self, arrays: Sequence[pa.Array], count: int) -> pa.Array:
        result = self.function(*arrays)
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        if not isinstance(result, pa.Array):
            result = pa.array(result, from_pandas=True)
        if len(result) != count:
            raise DataError(f"udf {self.name} returns one value a row", got=f"{len(result)} for {count} rows")
        return result.cast(arrow_type(self.type))


def udf(*, returns: object) -> Callable[[Function], Udf]:
    """Declares a function as a udf. Raises DefinitionError for parameters or a type that can't mean anything."""

    def declare(function: Function) -> Udf:
        try:
            return Udf(function, returns)
        except DefinitionError as error:
            raise error.at(str(caller())) from None

    return declare


class Call(NamedTuple):
    """A udf and the types of its arguments: what one name in SQL stands for."""

    udf: Udf
    types: tuple[str, ...]


DECLARED: dict[str, Call] = {}
"""The calls that this process's declarations make, by the name under which SQL makes them."""


def calls_udf(sql: str) -> bool:
    """True where some SQL of a plan calls a udf."""
    return _NAME.search(sql) is not None


def called_in(sql: str) -> dict[str, Call]:
    """The udfs that some SQL of a plan calls. Raises DataError where this process has not imported the declaration."""
    names = sorted(set(_NAME.findall(sql)))
    missing = [name for name in names if name not in DECLARED]
    if missing:
        raise DataError(
            "a plan calls a udf that this process has not imported",
            got=", ".join(missing),
            hint="import the definitions (HEADRACE_DEFINITIONS) whose udf has the same source as when it was applied",
        )
    return {name: DECLARED[name] for name in names}


def _source(function: Function) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        raise DefinitionError(
            "a udf stands in a file, so that its source can be hashed", got=getattr(function, "__name__", "?")
        ) from None


def _shown(function: Function) -> str:
    return str(inspect.signature(function))
