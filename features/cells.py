"""Cells: the mergeable pieces of state that every aggregation is made of.

Laws, held for each by tests/laws in SQL, Lua, NumPy and the oracle: zero is the identity of merge, merge is associative
and commutative, the merge of the parts is the whole, decode(encode(x)) is x. The moments hold them within 1e-9; all
others to the bit.

A cell of fixed size is `words` words of 8 bytes in the online row; one of variable size lives in the HASH beside it.

    kind            words  content                                                           zero
    count           1      int64                                                             0
    sum_int         2      int128, two's complement                                          0
    sum_fixed       3      int192, two's complement, in units of 2**-84                      0
    min_int         1      int64                                                             2**63 − 1
    max_int         1      int64                                                             −2**63
    min_float       1      float64                                                           +inf
    max_float       1      float64                                                           −inf
    first           4      time int64 µs, position int64, offset int64, value (8 raw bytes)  time = 2**53
    last            4      the same                                                          time = −2**53
    moments         5      n int64, mean, M2, min, max float64                               0, 0, 0, +inf, −inf
    min_bytes       —      0x01, then the bytes                                              nothing
    max_bytes       —      0x01, then the bytes                                              nothing
    first_bytes     —      time, position, offset int64, then the bytes                      nothing
    last_bytes      —      the same                                                          nothing

position = source · 2**32 + partition + 1, so that (time, position, offset) is the order inside an entity (DESIGN §2).
A cell that has no state of its own for 'no input' (min_int, min_float and their like) stands beside a count.

Lowerings: SQL in features/sql.py, NumPy in features/merge.py, Lua in stream/, the oracle in tests/oracle.py.
"""

from __future__ import annotations

from features.plan import Cell, CellKind

WORDS: dict[CellKind, int] = {
    CellKind.COUNT: 1,
    CellKind.SUM_INT: 2,
    CellKind.SUM_FIXED: 3,
    CellKind.MIN_INT: 1,
    CellKind.MAX_INT: 1,
    CellKind.MIN_FLOAT: 1,
    CellKind.MAX_FLOAT: 1,
    CellKind.FIRST: 4,
    CellKind.LAST: 4,
    CellKind.MOMENTS: 5,
}
"""Words of each cell of fixed size; the others are of variable size."""

FIRST_ZERO_TIME = 1 << 53
LAST_ZERO_TIME = -(1 << 53)
INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1

FRACTION_BITS = 84
"""A DOUBLE is summed in units of 2**-84 …"""
CLAMP_EXPONENT = 76
"""… clamped to ±2**76 first, so that 2**31 of them stay within 192 bits."""
MOMENTS_CLAMP_EXPONENT = 480
"""Inputs of moments are clamped to ±2**480, so that no square or sum of squares overflows a DOUBLE."""


def is_fixed(cell: Cell) -> bool:
    """True where the cell lives in the row's records, False where in the HASH beside it."""
    return cell.kind in WORDS


def word_offsets(cells: tuple[Cell, ...]) -> list[int | None]:
    """The first word of each cell in a record (word 0 is the tile key); None for a cell of variable size."""
    offsets: list[int | None] = []
    at = 1
    for cell in cells:
        offsets.append(at if is_fixed(cell) else None)
        at += WORDS.get(cell.kind, 0)
    return offsets


def record_words(cells: tuple[Cell, ...]) -> int:
    """The size of a record in words, its tile key included."""
    return 1 + sum(WORDS.get(cell.kind, 0) for cell in cells)
