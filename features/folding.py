"""The fold of cells of entries: prepared events -> for each tile the bytes of its entries (features/cells.py).

DuckDB groups the entries by tile and key and keeps what the cell's bound keeps; here they are laid out as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import sql
from features.cells import (
    ORDER_BYTES,
    VARIABLE_SIZE,
    Layout,
    input_type,
    is_entries,
    is_fixed,
    layout,
    value_type,
)
from features.deltas import fixed_words, int64_of, value_bits, var_blobs
from features.entries import BINNED, EntryRows, as_binary, canonical, entry_rows, labels_of
from features.plan import Cell, CellKind, Input
from features.ranges import Ints
from features.sketches import BUCKETS_MAX

Query = Callable[[str, Mapping[str, pa.Table]], pa.Table]
"""Runs SQL over named tables."""
Bytes = npt.NDArray[np.uint8]

_LENGTH = struct.Struct("<I")
_COUNTED = (CellKind.TOP_K, CellKind.BOTTOM_K, CellKind.FREQUENCIES, CellKind.BUCKETS, CellKind.BINS)


def fold_entries(
    query: Query, inputs: tuple[Input, ...], cell: Cell, members: pa.Table, groups: int, element: str | None = None
) -> list[bytes]:
    """The bytes of a cell in each of the groups 0 … groups − 1.

    `members`: the events of each group, sorted by the order inside an entity: g, t, position, offset, x0, x1, …
    """
    rows = entry_rows(inputs, cell, members, element)
    single = value_type(input_type(inputs, cell, element))
    shape = layout(cell, single)
    table = pa.table(
        {
            "g": members["g"].take(pa.array(rows.parent)),
            "s": rows.keys if isinstance(rows.keys, pa.Array) else pa.array(rows.keys),
            "row": pa.array(np.arange(len(rows.parent))),
            "rank": pa.array(rows.ranks if rows.ranks is not None else np.zeros(len(rows.parent), np.int64)),
        }
    )
    kept = query(_grouping(cell.kind, shape), {"entries": table})
    if cell.kind in (CellKind.BY, CellKind.ELEMENTS):
        payloads = _inner(query, inputs, cell, members, rows, table, kept, single, element)
        return _assembled(kept, _key_bytes(cell, kept), payloads, groups, shape)
    chosen = int64_of(kept["row"])
    if cell.kind in (CellKind.FIRST_K, CellKind.LAST_K):
        keys: list[bytes] | Bytes = _orders(members, rows, chosen)
        values = rows.values.take(pa.array(chosen))
        payload = _values(values, shape.payload_bytes)
    else:
        keys = _key_bytes(cell, kept)
        payload = _payloads(cell, kept, members, rows)
    return _assembled(kept, keys, payload, groups, shape)


def _grouping(kind: CellKind, shape: Layout) -> str:
    """SQL: the entries of each group that are kept, sorted by key: g, s, n, rank, row (the last of the key)."""
    if kind in (CellKind.FIRST_K, CellKind.LAST_K):
        direction = "ASC" if kind is CellKind.FIRST_K else "DESC"
        return (
            "SELECT * FROM entries QUALIFY row_number() OVER (PARTITION BY g ORDER BY row "
            f"{direction}) <= {shape.most} ORDER BY g, row"
        )
    source = "entries" if kind is not CellKind.BUCKETS else f"({_collapsed(shape)})"
    grouped = f"SELECT g, s, count(*) AS n, max(rank) AS rank, max(row) AS row FROM {source} GROUP BY g, s"
    order = {"first": "s ASC", "last": "s DESC", "newest": "row DESC"}.get(shape.keep)
    kept = f"SELECT * FROM ({grouped})"
    if order is not None:
        kept += f" QUALIFY row_number() OVER (PARTITION BY g ORDER BY {order}) <= {shape.most}"
    return f"{kept} ORDER BY g, s"


def _collapsed(shape: Layout) -> str:
    """The buckets further than the range below the largest magnitude of their sign, in the lowest that is kept."""
    reach = BUCKETS_MAX - 1
    return (
        "SELECT g, rank, row, CASE WHEN buckets <= "
        f"{shape.most} THEN s WHEN s > 0 THEN greatest(s, greatest_s - {reach}) "
        f"WHEN s < 0 THEN least(s, least_s + {reach}) ELSE 0 END AS s FROM entries JOIN "
        "(SELECT g, count(DISTINCT s) AS buckets, max(s) AS greatest_s, min(s) AS least_s FROM entries GROUP BY g) "
        "USING (g)"
    )


def _inner(
    query: Query,
    inputs: tuple[Input, ...],
    cell: Cell,
    members: pa.Table,
    rows: EntryRows,
    table: pa.Table,
    kept: pa.Table,
    single: str,
    element: str | None,
) -> list[bytes]:
    """The payloads of cells inside cells: the key's bytes with their length, the words, the values of variable size."""
    kept = kept.append_column("r", pa.array(np.arange(len(kept))))
    found = query(
        "SELECT row, r FROM entries JOIN kept USING (g, s) ORDER BY row",
        {"entries": table, "kept": kept.select(["g", "s", "r"])},
    )
    chosen = int64_of(found["row"])
    parents = members.drop_columns(["g"] + (["element"] if "element" in members.column_names else [])).take(
        pa.array(rows.parent[chosen])
    )
    inside = parents.append_column("g", found["r"]).append_column("element", rows.values.take(pa.array(chosen)))
    if "ord" in inside.column_names:
        inside = inside.drop_columns(["ord"])
    inside = inside.append_column("ord", pa.array(np.arange(len(inside))))
    fixed = [(n, each) for n, each in enumerate(cell.inner) if not is_entries(each)]
    text = sql.partials(inputs, fixed, "members", "g", "count(*) AS events", element=single)
    partials = query(f"{text} ORDER BY g", {"members": inside})
    words = fixed_words(cell.inner, partials, inside)
    nested = {
        n: fold_entries(query, inputs, each, inside, len(kept), single)
        for n, each in enumerate(cell.inner)
        if is_entries(each)
    }
    more = [b""] * len(kept)
    if not all(is_fixed(each) for each in cell.inner):
        more = var_blobs(cell.inner, partials, inside, nested)
    if cell.kind is CellKind.BY:
        labels = canonical(
            labels_of(rows, inputs, cell, members, element).take(pa.array(int64_of(kept["row"])))
        ).to_pylist()
    else:
        labels = [b""] * len(kept)
    return [
        _LENGTH.pack(len(label)) + label + word.tobytes() + rest
        for label, word, rest in zip(labels, words, more, strict=True)
    ]


def _payloads(cell: Cell, kept: pa.Table, members: pa.Table, rows: EntryRows) -> Bytes:
    if cell.kind in _COUNTED:
        return _matrix(int64_of(kept["n"]).astype("<i8"))
    if cell.kind is CellKind.REGISTERS:
        return int64_of(kept["rank"]).astype(np.uint8)[:, None]
    if cell.kind is CellKind.LAST_K_DISTINCT:
        return _orders(members, rows, int64_of(kept["row"]))
    return np.zeros((len(kept), 0), np.uint8)


def _key_bytes(cell: Cell, kept: pa.Table) -> list[bytes] | Bytes:
    column = kept["s"].combine_chunks()
    if not pa.types.is_integer(column.type):
        return [bytes(each) for each in column.to_pylist()]
    keys = int64_of(column)
    if cell.kind in BINNED:
        if cell.kind is CellKind.BUCKETS:
            return _matrix((keys + (1 << 31)).astype(">u4"))
        return _matrix(keys.astype(">u2"))
    return _matrix(biased(keys))


def biased(keys: Ints) -> npt.NDArray[np.uint64]:
    """Integers whose big-endian bytes sort as they do."""
    return (keys.view(np.uint64) ^ np.uint64(1 << 63)).astype(">u8")


def _orders(members: pa.Table, rows: EntryRows, chosen: Ints) -> Bytes:
    parent = pa.array(rows.parent[chosen])
    parts = [_matrix(biased(int64_of(members[name].take(parent)))) for name in ("t", "position", "offset")]
    order = np.concatenate([*parts, _matrix(rows.index[chosen].astype(">u4"))], axis=1)
    assert order.shape[1] == ORDER_BYTES
    return order


def _values(values: pa.Array, payload_bytes: int) -> list[bytes] | Bytes:
    if payload_bytes == VARIABLE_SIZE:
        return [bytes(each) for each in as_binary(values).to_pylist()]
    return _matrix(value_bits(values).astype("<i8"))


def _matrix(words: npt.NDArray[np.generic]) -> Bytes:
    """Words as rows of their bytes."""
    return np.ascontiguousarray(words).view(np.uint8).reshape(len(words), words.itemsize)


def _assembled(
    kept: pa.Table, keys: list[bytes] | Bytes, payloads: list[bytes] | Bytes, groups: int, shape: Layout
) -> list[bytes]:
    """The entries of each group one after the other."""
    bounds = np.searchsorted(int64_of(kept["g"]), np.arange(groups + 1))
    if isinstance(keys, np.ndarray) and isinstance(payloads, np.ndarray):
        size = shape.key_bytes + shape.payload_bytes
        data = np.concatenate([keys, payloads], axis=1).tobytes()
        return [data[lo * size : hi * size] for lo, hi in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    entries = [
        _sized(key, shape.key_bytes) + _sized(payload, shape.payload_bytes)
        for key, payload in zip(_listed(keys), _listed(payloads), strict=True)
    ]
    return [b"".join(entries[lo:hi]) for lo, hi in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


def _listed(parts: list[bytes] | Bytes) -> list[bytes]:
    return [part.tobytes() for part in parts] if isinstance(parts, np.ndarray) else parts


def _sized(part: bytes, size: int) -> bytes:
    return _LENGTH.pack(len(part)) + part if size == VARIABLE_SIZE else part
