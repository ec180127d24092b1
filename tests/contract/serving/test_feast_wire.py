"""Columns written as bytes are what protobuf itself would have made."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("feast")
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

from features.finish import Values
from schemas.row import NO_EVENT
from serving.feast.values import to_protos
from serving.feast.wire import stamps_bytes, vector_bytes

DTYPES: dict[str, Any] = {"float64": np.float64, "int64": np.int64, "bool": np.bool_, "string": object}
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(max_size=200),
}


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(CELLS)), st.integers(0, 200))
def test_a_vector_is_what_protobuf_makes(data: st.DataObject, type_name: str, count: int) -> None:
    cells = data.draw(st.lists(CELLS[type_name], min_size=count, max_size=count))
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)
    instants = data.draw(st.lists(st.integers(-(10**15), 10**16) | st.just(NO_EVENT), min_size=count, max_size=count))
    column = Values(np.array(cells, DTYPES[type_name]), valid)
    statuses = np.where(valid, 1, 2).astype(np.uint8)
    vector = GetOnlineFeaturesResponse.FeatureVector.FromString(
        vector_bytes(type_name, column, statuses, stamps_bytes(instants))
    )
    assert list(vector.values) == to_protos(type_name, column)
    assert list(vector.statuses) == statuses.tolist()
    epoch = datetime.fromtimestamp(0, UTC)
    seconds = [(stamp.ToDatetime(UTC) - epoch).total_seconds() for stamp in vector.event_timestamps]
    assert seconds == pytest.approx([0 if us == NO_EVENT else us / 1e6 for us in instants], abs=1e-5)


def test_dates_in_lists_are_the_first_instants_of_their_days() -> None:
    days = np.empty(2, object)
    days[:] = [[date(1970, 1, 2), date(1969, 12, 31)], []]
    first, second = to_protos("list<date>", Values(days, np.ones(2, np.bool_)))
    assert list(first.unix_timestamp_list_val.val) == [86_400, -86_400]
    assert list(second.unix_timestamp_list_val.val) == []
