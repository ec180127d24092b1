"""A udf that looks at other rows is found out when it is applied; and an entity's key has one type."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features import Entity, FeatureView, Last, Mean, udf
from features.plan import Definitions
from features.planner import compile_definitions
from headrace.definitions.udf_check import check_udfs
from schemas import Event
from schemas.errors import DefinitionError


class Hop(Event, topic="hops", time="at", key=["plane"]):
    at: datetime
    plane: str
    miles: float
    minutes: float | None


class Tow(Event, topic="tows", time="at", key=["plane"]):
    at: datetime
    plane: int
    miles: float


@udf(returns=float)
def speed(miles: pa.Array, minutes: pa.Array) -> Any:
    return pc.divide(miles, pc.divide(minutes, 60.0))


@udf(returns=float)
def above_average(miles: pa.Array) -> Any:
    return pc.subtract(miles, pc.mean(miles))


@udf(returns=float)
def since_last(miles: pa.Array) -> Any:
    values = miles.to_pylist()
    return [None if a is None or b is None else a - b for a, b in zip(values, [0.0, *values[:-1]], strict=True)]


@udf(returns=str)
def described(plane: pa.Array, at: pa.Array, minutes: pa.Array) -> Any:
    return [f"{p} {t} {m}" for p, t, m in zip(*(each.to_pylist() for each in (plane, at, minutes)), strict=True)]


def of(function: Any) -> Definitions:
    entity = Entity("plane", join_key="plane")
    return compile_definitions("p", [FeatureView("v", entity=entity, source=Hop, features={"x": Last(function)})])


def test_a_udf_of_its_own_row_is_taken() -> None:
    check_udfs(of(speed))
    check_udfs(of(described))


@pytest.mark.parametrize("function", [above_average, since_last])
def test_a_udf_that_looks_at_other_rows_is_refused(function: Any) -> None:
    with pytest.raises(
        DefinitionError, match=f"udf {function.name}: a udf treats each row alone; got .* among 48 rows"
    ):
        check_udfs(of(function))


def test_a_join_key_has_one_type() -> None:
    plane = Entity("plane", join_key="plane")
    views = [
        FeatureView(name, entity=plane, source=source, features={"x": Mean("miles", over="1h")})
        for name, source in (("hops", Hop), ("tows", Tow))
    ]
    with pytest.raises(DefinitionError, match=r"join key 'plane'.*string in view 'hops'.*int64 in view 'tows'"):
        compile_definitions("p", views)
