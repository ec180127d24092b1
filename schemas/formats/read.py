"""The messages of one format -> events: what every format does alike.

The fast path reads all it can; what it leaves is read by pydantic one by one, which says why it is no event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.event import Event
from schemas.formats.fast import Fast, Values
from schemas.formats.refusal import Refusal, refused

T = TypeVar("T")
NOT_READ = (ValueError, TypeError, OverflowError, RecursionError)
"""What msgspec raises for a message that it can't read."""


class Block(NamedTuple):
    """Messages that were read as columns at once: their places, ascending, and all columns of the event."""

    rows: npt.NDArray[np.int64]
    arrays: list[pa.Array]


class Read(NamedTuple):
    """Events in the order of their messages. `rows` are the places of these among the messages.

    `lists` holds, for some columns, the values of all events; the others are attributes of the events. What stands in
    `block` is not among them.
    """

    rows: list[int]
    events: list[Any]
    lists: dict[str, Values]
    refusals: list[Refusal]
    block: Block | None = None


class _FastRead(NamedTuple):
    events: list[Any]
    slow: list[int]
    """The places of items that are left for pydantic, ascending."""
    lists: dict[str, Values]


class Reader(Protocol):
    """Reads the messages of one event type in one format."""

    def read(self, values: Sequence[bytes]) -> Read:
        """Every message is an event or a refusal; never an exception for what stands in one.

        Raises NotReady where a schema can't be asked for now: the same messages may be read again.
        """
        ...


def read_events(
    items: Sequence[T], fast: Fast | None, decode: Callable[[T], Any] | None, explain: Callable[[T], Event], time: str
) -> Read:
    """`decode`: one item to a struct of `fast`; `explain`: to the event, or raises what `refused` understands."""
    if fast is None or decode is None:
        fast_read = _FastRead([], list(range(len(items))), {})
    else:
        fast_read = _read_fast(items, fast, decode)
    events, slow, lists = fast_read
    left = set(slow)
    rows = [row for row in range(len(items)) if row not in left] if left else list(range(len(items)))
    refusals: list[Refusal] = []
    late: list[Event] = []
    for row in slow:
        try:
            event = explain(items[row])
        except MemoryError:
            raise
        except Exception as error:
            refusals.append(refused(row, error, time))
        else:
            rows.append(row)
            late.append(event)
    if late:
        order = sorted(range(len(rows)), key=rows.__getitem__)
        rows, events = [rows[i] for i in order], _in_order(events, late, order)
        lists = {name: _in_order(values, [getattr(e, name) for e in late], order) for name, values in lists.items()}
    return Read(rows, events, lists, refusals)


def _in_order(values: Values, late: list[Any], order: list[int]) -> Values:
    if isinstance(values, list):
        together = values + late
        return [together[i] for i in order]
    return pa.concat_arrays([values, pa.array(late, values.type)]).take(pa.array(order))


def _read_fast(items: Sequence[T], fast: Fast, decode: Callable[[T], Any]) -> _FastRead:
    events: list[Any] = []
    slow: list[int] = []
    source = map(decode, items)
    while True:
        try:
            for event in source:
                events.append(event)
        except NOT_READ:
            slow.append(len(events) + len(slow))
        else:
            break
    lists, doubtful = fast.lists(events)
    while doubtful:
        left = set(slow)
        rows = [row for row in range(len(items)) if row not in left]
        slow = sorted(left | {rows[i] for i in doubtful})
        events = [event for i, event in enumerate(events) if i not in doubtful]
        lists, doubtful = fast.lists(events)
    return _FastRead(events, slow, lists)
