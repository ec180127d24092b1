import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.duration import UNITS_US, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [("90s", 90_000_000), ("5m", 300_000_000), ("1h30m", 5_400_000_000), ("2w", 1_209_600_000_000), ("10ms", 10_000)],
)
def test_reads_durations_as_people_write_them(text: str, duration_us: int) -> None:
    assert parse_duration(text) == duration_us


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "-5m", "5.5m", "5m junk", "99999999999999999999w"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="5m|number|longer"):
        parse_duration(text)


def test_refuses_what_is_no_text() -> None:
    with pytest.raises(TypeError):
        parse_duration(300)  # type: ignore[arg-type]


@given(st.integers(1, 10**12).map(lambda n: n * UNITS_US["ms"]))
def test_what_is_formatted_reads_back(duration_us: int) -> None:
    assert parse_duration(format_duration(duration_us)) == duration_us
