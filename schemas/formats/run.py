"""Many messages of one schema as one run of bytes, read field by field for all of them at once.

Where a message turns out to be damaged it is marked `bad` and means nothing from there on: whoever reads messages one
by one says what is wrong with it. No place outside of a message is ever taken for its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]
Bytes = npt.NDArray[np.uint8]
PADDING = bytes(16)
"""What a wrong cursor may look at behind the last message: more than the widest field of a fixed size."""
LAST_SHIFT = 63


class Run:
    """`at` is where each message is read next, `end` where it ends."""

    def __init__(self, values: Sequence[bytes], head_bytes: int) -> None:
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        end: Ints = np.cumsum(sizes)
        self._data: Bytes = np.frombuffer(b"".join([*values, PADDING]), np.uint8)
        self._begin(end - sizes + head_bytes, end)

    @classmethod
    def of(cls, data: Bytes, at: Ints, end: Ints) -> Run:
        """Messages that stand in `data`, which is padded behind them."""
        run = cls.__new__(cls)
        run._data = data
        run._begin(at, end)
        return run

    def _begin(self, at: Ints, end: Ints) -> None:
        self.end = end
        # A message may be shorter than its head.
        self.at = np.minimum(at, end)
        self.bad = at > end

    def all_rows(self) -> Rows:
        """Every message."""
        return np.arange(len(self.at))

    def unfinished(self, rows: Rows) -> Rows:
        """Those of the rows that have bytes left and aren't bad."""
        return rows[~self.bad[rows] & (self.at[rows] < self.end[rows])]

    def byte_before(self, rows: Rows) -> Bytes:
        """What stands in front of where each message begins."""
        return self._data[self.at[rows] - 1]  # type: ignore[no-any-return]

    def inside(self, starts: Ints, lengths: Ints) -> Run:
        """Pieces of the same bytes as a run of their own."""
        return Run.of(self._data, starts, starts + lengths)

    def good(self) -> npt.NDArray[np.bool_]:
        """The messages that have been read to their end, no further and no less."""
        return ~self.bad & (self.at == self.end)  # type: ignore[no-any-return]

    def longs(self, rows: Rows) -> Ints:
        """A zigzag integer of each."""
        return unzigzag(self.varints(rows))

    def varints(self, rows: Rows) -> Unsigned:
        """An unsigned integer of each, seven bits to a byte."""
        at = self.at[rows]
        values = np.zeros(len(rows), np.uint64)
        pending = np.arange(len(rows))
        for shift in range(0, LAST_SHIFT + 1, 7):
            byte = self._data[at[pending]]
            values[pending] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            at[pending] += 1
            goes_on = byte >= 0x80
            # Ends where the message does, or says more than 64 bits hold: its neighbour's bytes are none of it.
            wrong = goes_on & (at[pending] >= self.end[rows[pending]]) | (byte > 1 if shift == LAST_SHIFT else False)
            self.bad[rows[pending[wrong]]] = True
            pending = pending[goes_on & ~wrong]
            if not len(pending):
                break
        self._go_to(rows, at)
        return values

    def bytes_of(self, rows: Rows, count: int) -> Bytes:
        """So many bytes of each, a row for each message."""
        at = self.at[rows]
        found = self._data[at[:, None] + np.arange(count)]
        self._go_to(rows, at + count)
        return found

    def slices(self, rows: Rows, lengths: Ints) -> tuple[Ints, Ints]:
        """Where as many bytes of each begin, and how many they are: none where there are not so many."""
        starts = self.at[rows]
        wrong = (lengths < 0) | (lengths > self.end[rows] - starts)
        self.bad[rows[wrong]] = True
        lengths = np.where(wrong, 0, lengths)
        self.at[rows] = starts + lengths
        return starts, lengths

    def binary(self, starts: Ints, lengths: Ints, type_: pa.DataType) -> pa.Array:
        """Slices as an array of text or bytes. Raises pa.ArrowInvalid for text that is none."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(self._data[where])]
        array = pa.Array.from_buffers(type_, len(lengths), buffers)
        array.validate(full=True)
        return array

    def refuse(self, rows: Rows, wrong: npt.NDArray[np.bool_]) -> None:
        """Marks those of the rows that are wrong."""
        self.bad[rows[wrong]] = True

    def _go_to(self, rows: Rows, at: Ints) -> None:
        end = self.end[rows]
        self.bad[rows[at > end]] = True
        self.at[rows] = np.minimum(at, end)


def unzigzag(values: Unsigned) -> Ints:
    """The signed integers: 0, −1, 1, −2, … for 0, 1, 2, 3, …"""
    return (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)
