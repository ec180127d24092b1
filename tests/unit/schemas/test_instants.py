from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.instants import FRACTION_DIGITS_MAX, INSTANT, instants_of

BY_PYDANTIC = TypeAdapter(datetime)


def by_pydantic(value: object) -> datetime | None:
    try:
        read = BY_PYDANTIC.validate_python(value)
    except ValidationError:
        return None
    return (read - read.utcoffset() if read.utcoffset() else read).replace(tzinfo=None)  # type: ignore[operator]


def parts(low: int, high: int, width: int) -> st.SearchStrategy[str]:
    return st.one_of(st.integers(low, high), st.integers(0, 10**width - 1)).map(lambda n: f"{n:0{width}}")


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    """Some texts of one shape, most of them instants, with marks that may be others than ISO's."""
    digits, zone = draw(st.integers(0, FRACTION_DIGITS_MAX + 2)), draw(st.sampled_from(["", "Z", "z", "+00:00"]))
    mark = st.sampled_from("T" * 8 + " t_")
    found = []
    for _ in range(draw(st.integers(1, 4))):
        day = "-".join([draw(parts(1, 9999, 4)), draw(parts(1, 12, 2)), draw(parts(1, 28, 2))])
        time = ":".join([draw(parts(0, 23, 2)), draw(parts(0, 59, 2)), draw(parts(0, 59, 2))])
        fraction = "." + draw(st.text("0123456789", min_size=digits, max_size=digits)) if digits else ""
        found.append(f"{day}{draw(mark)}{time}{fraction}{zone}")
    return found


@given(texts())
def test_what_is_read_at_once_is_what_pydantic_reads(values: list[str]) -> None:
    read = instants_of(values)
    if read is not None:
        assert (read.type, read.to_pylist()) == (INSTANT, [by_pydantic(value) for value in values])


@given(st.lists(st.integers(-(2**60), 2**60) | st.integers(-3 * 10**10, 3 * 10**10), min_size=1))
def test_epoch_numbers_are_what_pydantic_reads(values: list[int]) -> None:
    read = instants_of(values)
    if read is not None:
        assert read.to_pylist() == [by_pydantic(value) for value in values]


@given(
    st.datetimes(min_value=datetime(1, 1, 1)),
    st.sampled_from(["", "Z"]),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
)
def test_the_forms_that_producers_write_are_read_at_once(value: datetime, zone: str, spec: str) -> None:
    text = value.isoformat(timespec=spec) + zone
    read = instants_of([text, text])
    assert read is not None
    assert read.to_pylist() == [by_pydantic(text)] * 2


@pytest.mark.parametrize(
    "values",
    [
        ["2023-11-14T22:13:20", "2023-11-14T22:13:20Z"],
        ["2023-11-14T22:13:2", "2023-11-14T22:13:200"],
        ["2023-11-14T22:13:20+01:00"],
        ["2023-02-29T00:00:00"],
        ["1900-02-29T00:00:00"],
        ["2023-11-14T24:00:00"],
        ["2023-11-14T22:13:20."],
        ["2023-11-14"],
        ["２０２３-11-14T22:13:20"],
        [""],
        [],
        [None, 1],
        [True],
        [1.5],
        [2**70],
    ],
)  # fmt: skip
def test_everything_else_is_left_to_pydantic(values: list[object]) -> None:
    assert instants_of(values) is None


def test_finer_than_a_microsecond_is_cut_off() -> None:
    read = instants_of(["2023-11-14T22:13:20.999999999Z"])
    assert read is not None
    assert read.to_pylist() == [datetime(2023, 11, 14, 22, 13, 20, 999999)]
