"""A served vector goes through its message unchanged, DOUBLEs to the bit; a damaged message is a rejection."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.served import KAFKA_COLUMNS, decode_served, encode_served, own_fields
from schemas.decode import Batch
from schemas.rejection import Reason

INT64 = st.integers(-(2**63), 2**63 - 1)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
INSTANTS = st.datetimes(datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2249-12-31"))
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int64(): INT64,
    pa.float64(): DOUBLES,
    pa.string(): st.text(),
    pa.binary(): st.binary(),
    pa.timestamp("us"): INSTANTS,
    pa.date32(): st.dates(date(1700, 1, 1), date(2249, 12, 31)),
    pa.decimal128(38, 2): st.integers(-(10**30), 10**30).map(lambda n: Decimal(n).scaleb(-2)),
    pa.list_(pa.float64()): st.lists(DOUBLES),
    pa.list_(pa.timestamp("us")): st.lists(INSTANTS),
    pa.map_(pa.string(), pa.int64()): st.dictionaries(st.text(), INT64).map(lambda d: list(d.items())),
    pa.map_(pa.date32(), pa.binary()): st.dictionaries(st.dates(), st.binary()).map(lambda d: list(d.items())),
}
SCHEMA = pa.schema(
    [
        pa.field("instant", pa.timestamp("us"), nullable=False),
        *(pa.field(f"f{n}", type_) for n, type_ in enumerate(VALUES)),
        pa.field("fingerprints", pa.string(), nullable=False),
        pa.field("checkpoints", pa.string(), nullable=False),
        *KAFKA_COLUMNS,
    ]
)


class Sent:
    """A message as a Kafka client hands it over."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None


def batch(values: list[bytes | None]) -> Batch:
    numbers = np.arange(len(values))
    return Batch("served.s", values, [None] * len(values), numbers * 0, numbers, numbers * 1000, [Sent()] * len(values))


ROWS = st.tuples(INSTANTS, *(st.none() | strategy for strategy in VALUES.values()), st.text(), st.text())


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_a_vector_goes_through_its_message_unchanged(rows: list[tuple[Any, ...]]) -> None:
    names = [field.name for field in own_fields(SCHEMA)]
    columns = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    decoded = decode_served(batch([*encode_served(SCHEMA, columns)]), SCHEMA)
    assert decoded.rejections == []
    for name, values in columns.items():
        expected = pa.array(values, SCHEMA.field(name).type)
        assert decoded.table[name].combine_chunks().equals(expected), name
    assert decoded.table["kafka_offset"].to_pylist() == list(range(len(rows)))


def test_a_negative_zero_and_the_smallest_double_keep_their_bits() -> None:
    schema = pa.schema([pa.field("x", pa.float64()), *KAFKA_COLUMNS])
    values = np.array([-0.0, 5e-324, 0.1 + 0.2, 1.7976931348623157e308])
    table = decode_served(batch([*encode_served(schema, {"x": values.tolist()})]), schema).table
    assert table["x"].to_numpy().tobytes() == values.tobytes()


def test_what_is_no_vector_is_a_rejection_beside_the_good_ones() -> None:
    schema = pa.schema(
        [pa.field("instant", pa.timestamp("us"), nullable=False), pa.field("n", pa.int64()), *KAFKA_COLUMNS]
    )
    messages = [
        b'{"instant": 1, "n": 2}',
        None,
        b"{",
        b"[1]",
        b'{"n": 2}',
        b'{"instant": 1, "n": "two"}',
        b'{"instant": 3}',
    ]
    decoded = decode_served(batch(messages), schema)
    assert decoded.table["n"].to_pylist() == [2, None]
    assert [each.offset for each in decoded.rejections] == [1, 2, 3, 4, 5]
    assert [each.reason for each in decoded.rejections] == [Reason.EMPTY] + [Reason.UNDECODABLE] * 4
