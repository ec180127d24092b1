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
    moments4        7      n int64, mean, M2, M3, M4, min, max float64                       0, 0, 0, 0, 0, +inf, −inf
    decayed         3      newest time int64 µs, Σ x·2^(−age/half-life), Σ of the weights    time = −2**53, 0, 0
    min_bytes       —      0x01, then the bytes                                              nothing
    max_bytes       —      0x01, then the bytes                                              nothing
    first_bytes     —      time, position, offset int64, then the bytes                      nothing
    last_bytes      —      the same                                                          nothing

and the cells that are sorted entries of a key and a payload. Their zero is no entry; entries of one key are joined; a
bound that does not depend on the order of arrival keeps them small:

    kind             key                        payload          joined by  bound
    first_k, last_k  order (28)                 value            (unique)   the k first, last
    last_k_distinct  value                      order (28)       the later  the k whose order is last
    top_k, bottom_k  value                      count int64      addition   the k largest, smallest
    frequencies      value                      count int64      addition   the 1,001 smallest: over 1,000 is too many
    distinct         value, or md5 of text (16) —                           the `limit` smallest
    registers        register (2)               rank (1)         maximum    4,096 registers
    buckets          bucket (4)                 count int64      addition   2,048 buckets of a sign, largest first
    bins             bin (2)                    count int64      addition   one a bin
    by               md5 of the key (16)        key and cells    their own  the 256 smallest
    elements         index (2)                  cells            their own  4,096 elements

Keys are big-endian and biased, so that bytes sort as values do; a value is 8 such bytes, or text or bytes as they are.
An order is time, position, offset (8 bytes each) and the index in a list (4).

position = source · 2**32 + partition + 1, so that (time, position, offset) is the order inside an entity (DESIGN §2).
A cell that has no state of its own for 'no input' (min_int, min_float and their like) stands beside a count.

Lowerings: SQL in features/sql.py, NumPy in features/merge.py, Lua in stream/, the oracle in tests/oracle.py.
"""

from __future__ import annotations

from typing import NamedTuple

from features.plan import ELEMENT, Cell, CellKind, Input
from features.sketches import BUCKETS_MAX, BY_KEYS_MAX, ELEMENTS_MAX
from schemas.types import element_type, map_types

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
    CellKind.MOMENTS4: 7,
    CellKind.DECAYED: 3,
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


MOMENTS4_CLAMP_EXPONENT = 240
"""… and those of the fourth moments to ±2**240."""
ORDER_BYTES = 28
DIGEST_BYTES = 16


class Layout(NamedTuple):
    """How the entries of a cell lie in its bytes, and what merging does with them.

    `key_bytes`, `payload_bytes`: VARIABLE_SIZE where a length (uint32) stands in front. `join`: what becomes of two
    payloads of one key. `keep`: which entries are kept, at most `most` of them (0: all).
    """

    key_bytes: int
    payload_bytes: int
    join: str = "none"
    keep: str = "all"
    most: int = 0


VARIABLE_SIZE = -1
ENTRY_KINDS = frozenset(
    {
        CellKind.FIRST_K,
        CellKind.LAST_K,
        CellKind.LAST_K_DISTINCT,
        CellKind.TOP_K,
        CellKind.BOTTOM_K,
        CellKind.FREQUENCIES,
        CellKind.DISTINCT,
        CellKind.REGISTERS,
        CellKind.BUCKETS,
        CellKind.BINS,
        CellKind.BY,
        CellKind.ELEMENTS,
    }
)


def layout(cell: Cell, value_type: str) -> Layout:
    """The layout of a cell of ENTRY_KINDS over single values of that type."""
    value = VARIABLE_SIZE if value_type in ("string", "bytes") else 8
    k = cell.argument
    layouts = {
        CellKind.FIRST_K: Layout(ORDER_BYTES, value, "none", "first", k),
        CellKind.LAST_K: Layout(ORDER_BYTES, value, "none", "last", k),
        CellKind.LAST_K_DISTINCT: Layout(value, ORDER_BYTES, "greater", "newest", k),
        CellKind.TOP_K: Layout(value, 8, "add", "last", k),
        CellKind.BOTTOM_K: Layout(value, 8, "add", "first", k),
        CellKind.FREQUENCIES: Layout(value, 8, "add", "first", k + 1),
        CellKind.DISTINCT: Layout(DIGEST_BYTES if value == VARIABLE_SIZE else 8, 0, "none", "first", k),
        CellKind.REGISTERS: Layout(2, 1, "greater"),
        CellKind.BUCKETS: Layout(4, 8, "add", "collapse", 2 * BUCKETS_MAX + 1),
        CellKind.BINS: Layout(2, 8, "add"),
        CellKind.BY: Layout(DIGEST_BYTES, VARIABLE_SIZE, "cells", "first", BY_KEYS_MAX),
        CellKind.ELEMENTS: Layout(2, VARIABLE_SIZE, "cells", "first", ELEMENTS_MAX),
    }
    return layouts[cell.kind]


def input_type(inputs: tuple[Input, ...], cell: Cell, element: str | None) -> str:
    """The type of a cell's input; `element` is that of the outer cell's elements."""
    if cell.input == ELEMENT:
        return element or ""
    return inputs[cell.input].type if cell.input >= 0 else ""


def value_type(type_name: str) -> str:
    """The type of the single values of an input: of a list its elements', of a map its values'."""
    types = map_types(type_name)
    return element_type(type_name) or (types[1] if types else type_name)


def is_entries(cell: Cell) -> bool:
    """True for a cell of sorted entries."""
    return cell.kind in ENTRY_KINDS


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
