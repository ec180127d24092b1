"""The one kernel: DuckDB as a pure function from Arrow to Arrow. It evaluates every user expression on every path."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import FunctionNullHandling, PythonUDFType

from features import few, sql
from features.cells import is_entries
from features.deltas import Deltas, to_deltas
from features.errors import DataError
from features.expression import quote
from features.folding import fold_entries
from features.plan import CellKind, DerivedPlan, ViewPlan
from features.udf import called_in
from features.zones import periods
from schemas.row import RESOLUTION_SHIFT
from schemas.types import duckdb_type

# The copy is what is wanted: a relation would be planned anew each time.
warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", category=UserWarning)


class Query(NamedTuple):
    """A SELECT over files below the kernel's directories, made by headrace itself: never a user's text."""

    sql: str


Relation: TypeAlias = pa.Table | pa.RecordBatchReader | Query
"""Events of one source: in Arrow, or in files."""
DERIVED_ROWS_PLANNED = 10_000
"""Up to so many rows a derived view is a statement planned once (planning takes milliseconds, running it tenths); more
are a training set's, of which DuckDB reads the parts side by side."""
READ_ROWS = 100_000
"""Rows of a batch that is handed over."""
ORDER = ["key", "t", "position", "offset"]
"""The order inside an entity (DESIGN §2)."""
PLAIN = frozenset(
    {
        CellKind.COUNT,
        CellKind.SUM_INT,
        CellKind.SUM_FIXED,
        CellKind.MIN_INT,
        CellKind.MAX_INT,
        CellKind.MIN_FLOAT,
        CellKind.MAX_FLOAT,
        CellKind.MIN_BYTES,
        CellKind.MAX_BYTES,
    }
)
"""Cells whose partial aggregates are all that is needed of the events: one query folds them, unsorted."""
ORDER_FREE = PLAIN | {CellKind.FIRST, CellKind.LAST, CellKind.FIRST_BYTES, CellKind.LAST_BYTES}
"""Cells whose merge is the same to the bit in any order of events of one instant: half the cost of sorting is saved."""
Floors = Mapping[int, npt.NDArray[np.int64]]
"""For some partitions of one source the offset, by shard, below which events are folded already."""


class _Slot:
    """Stands in a statement's FROM for the table that it holds when the statement runs."""

    def __init__(self, table: pa.Table | None) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        assert self.table is not None, "a statement ran without its tables"
        return self.table.__arrow_c_stream__(requested_schema)


class _Statement(NamedTuple):
    """A prepared statement, what it reads, and the plan that it was made for (kept, so that its id stays its own)."""

    name: str
    slots: list[_Slot]
    plan: ViewPlan | DerivedPlan


class Kernel:
    """One locked-down DuckDB connection; not to be shared between threads.

    UTC, no access to files but below `directories` (Parquet is read there), no extension, no setting can change.
    `memory_limit` is DuckDB's ("2GiB"); beyond it, DuckDB spills below `spill`, or fails where there is none.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        memory_limit: str | None = None,
        directories: Sequence[str | Path] = (),
        spill: str | Path | None = None,
    ) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        if spill is not None:
            config["temp_directory"] = str(spill)
        self._connection = duckdb.connect(":memory:", config=config)
        self._udfs: set[str] = set()
        self._statements: dict[tuple[object, ...], _Statement] = {}
        self._connection.execute("SET TimeZone = 'UTC'")
        allowed = ", ".join(_literal(str(directory)) for directory in directories)
        self._connection.execute(f"SET allowed_directories = [{allowed}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def _declare_udfs(self, plan: ViewPlan) -> None:
        """Makes the udfs that the plan calls known to the connection. Raises DataError for one that is not declared."""
        for name, call in called_in(" ".join(each.sql for each in plan.inputs)).items():
            if name not in self._udfs:
                self._connection.create_function(
                    name,
                    call.udf.for_duckdb(),
                    [duckdb_type(type_name) for type_name in call.types],
                    duckdb_type(call.udf.type),
                    type=PythonUDFType.ARROW,
                    null_handling=FunctionNullHandling.SPECIAL,
                )
                self._udfs.add(name)

    def close(self) -> None:
        """Frees the connection's memory."""
        self._connection.close()

    def fold(
        self,
        plan: ViewPlan,
        tables: Sequence[pa.Table | None],
        floors: Sequence[Floors | None] | None = None,
    ) -> Deltas:
        """What a micro-batch adds to the view's rows.

        `tables[i]` holds decoded events of `plan.sources[i]` (None: none). `floors[i]` drops the events of a
        shard and partition below that offset.
        """
        read = sum(len(table) for table in tables if table is not None)
        if floors is None and few.is_for(plan) and read <= few.EVENTS_MAX:
            events = self._prepared_query(plan, tables, "events")
            return few.few_deltas(plan, events, {"events": read} | few.count_events(plan, events))
        if floors is None and _is_plain(plan):
            partials = self._prepared_query(plan, tables, "deltas")
            return to_deltas(plan, partials.slice(0, 0), partials, {"events": read} | _counts(plan, partials), {})
        with self._unfolded(plan, tables, floors) as text:
            events = self._query(f'SELECT * FROM ({text}) ORDER BY t, position, "offset"')
        counts = {"events": read} | few.count_events(plan, events)
        events = _with_periods(plan, events.append_column("ord", pa.array(np.arange(len(events)))))
        with self._bound({"prepared": events}):
            partials = self._query(sql.deltas(plan, "prepared"))
        return to_deltas(plan, events, partials, counts, self._entries(plan, events, partials))

    def records(self, plan: ViewPlan, relations: Sequence[Relation | None], keys: pa.Array | None = None) -> pa.Table:
        """The view's events, prepared for offline reads: key, t (int64 µs), position, offset, x0, x1, …

        Sorted by (key, t, position, offset). `keys` (texts of entity keys) leaves all other entities out.
        """
        wanted = {} if keys is None else {"wanted": pa.table({"key": keys})}
        only = "" if keys is None else "SEMI JOIN wanted USING (key) "
        with self._prepared(plan, relations) as text, self._bound(wanted):
            return self._query(f"SELECT * FROM ({text}) {only}ORDER BY {', '.join(map(quote, ORDER))}")

    def record_batches(
        self, plan: ViewPlan, relations: Sequence[Relation | None], keys: pa.Array, rows: int
    ) -> Generator[pa.RecordBatch, None, None]:
        """The same for the entities in `keys` (each once), in batches of about that many rows: they need not all fit.

        `key` is the entity's place in `keys`. Sorted by (key, t), then by (position, offset) where it matters to a bit.
        The kernel answers nothing else until the last batch is taken or the iterator is closed.
        """
        free = plan.kind != "latest" and ORDER_FREE.issuperset(cell.kind for cell in plan.cells)
        order = ["key", "t"] if free else ORDER
        wanted = pa.table({"name": keys, "place": pa.array(np.arange(len(keys), dtype=np.int32))})
        with self._prepared(plan, relations) as text, self._bound({"wanted": wanted}), _memory_errors():
            placed = f"SELECT place AS key, e.* EXCLUDE (key) FROM ({text}) e JOIN wanted ON e.key = wanted.name"
            ordered = f"SELECT * FROM ({placed}) ORDER BY {', '.join(map(quote, order))}"
            yield from self._connection.sql(ordered).to_arrow_reader(rows)

    def instants(self, plan: ViewPlan, relations: Sequence[Relation | None], keys: pa.Array, rows_max: int) -> pa.Table:
        """Of the events of these entities (`key`: the place in `keys`) the instants `t`, in no order; at most so many.

        `keys` (each once) are values of the view's one join key.
        """
        wanted = {"wanted_key": keys, "wanted_number": np.arange(len(keys), dtype=np.int64)}
        with self._asked_for(plan, relations, pa.table(wanted), at_instants=False) as text:
            return self._read(f"SELECT key, t FROM ({text}) LIMIT {rows_max}")

    def events_at(
        self, plan: ViewPlan, relations: Sequence[Relation | None], keys: pa.Array, instants: npt.NDArray[np.int64]
    ) -> pa.Table:
        """The events of entity `keys[i]` at `instants[i]`, for each i: as `records`, but `key` is i; in no order."""
        wanted = {"wanted_key": keys, "wanted_at": instants, "wanted_number": np.arange(len(keys), dtype=np.int64)}
        with self._asked_for(plan, relations, pa.table(wanted), at_instants=True) as text:
            return self._read(text)

    @contextmanager
    def _asked_for(
        self, plan: ViewPlan, relations: Sequence[Relation | None], wanted: pa.Table, *, at_instants: bool
    ) -> Iterator[str]:
        self._declare_udfs(plan)
        with ExitStack() as stack:
            names = [self._relation(stack, f"source_{n}", relation) for n, relation in enumerate(relations)]
            stack.enter_context(self._bound({"wanted": wanted}))
            yield sql.events(plan, names, sql.Wanted("wanted", at_instants))

    @contextmanager
    def _prepared(self, plan: ViewPlan, relations: Sequence[Relation | None]) -> Iterator[str]:
        self._declare_udfs(plan)
        with ExitStack() as stack:
            yield sql.events(
                plan, [self._relation(stack, f"source_{n}", relation) for n, relation in enumerate(relations)]
            )

    def entities(self, plan: ViewPlan, relations: Sequence[Relation | None]) -> pa.Table:
        """The entities that have events: key (its text) and first (the instant of its first one, int64 µs), by key."""
        with self._prepared(plan, relations) as text:
            return self._query(f"SELECT key, min(t) AS first FROM ({text}) GROUP BY key ORDER BY key")

    def entity_keys(self, plan: ViewPlan, table: pa.Table) -> pa.Array:
        """The entity key's text for each row of a table with the view's join keys; null where a part is null."""
        columns = table.select([key.name for key in plan.keys])
        with self._bound({"entities": columns}):
            result = self._query(f"SELECT {sql.key_text(plan.keys)} AS key FROM entities")
        return result["key"].combine_chunks()

    def derive(self, plan: DerivedPlan, table: pa.Table) -> pa.Table:
        """The derived features, row by row, of a table with a STRUCT column a view and the request's columns."""
        columns = ", ".join(f"{sql.value(f.sql, f.type)} AS {quote(f.name)}" for f in plan.features)
        if len(table) > DERIVED_ROWS_PLANNED:
            with self._bound({"vectors": table}):
                return self._query(f"SELECT {columns} FROM vectors")
        key = (id(plan), "derived", table.schema)
        if key not in self._statements:
            number, slot = len(self._statements), _Slot(table)
            self._connection.register(f"slot_{number}_0", slot)
            self._connection.execute(f"PREPARE statement_{number} AS SELECT {columns} FROM slot_{number}_0")
            self._statements[key] = _Statement(f"statement_{number}", [slot], plan)
        return self._execute(self._statements[key], [table])

    def _entries(self, plan: ViewPlan, events: pa.Table, partials: pa.Table) -> dict[int, list[bytes]]:
        """The bytes of each cell of entries in each group of `partials`."""
        numbers = [number for number, cell in enumerate(plan.cells) if is_entries(cell)]
        if not numbers:
            return {}
        groups = partials.select(["key", "tile_key"]).append_column("g", pa.array(np.arange(len(partials))))
        placing = [name for name in events.column_names if name in ("key", "t", "ord") or name.startswith("cal")]
        found = self._over(
            f"SELECT ord, g FROM ({sql.tiles(plan, 'prepared')}) JOIN groups USING (key, tile_key) ORDER BY ord",
            {"prepared": events.select(placing), "groups": groups},
        )
        members = events.drop_columns(["key"]).take(found["ord"]).append_column("g", found["g"])
        return {
            number: fold_entries(self._over, plan.inputs, plan.cells[number], members, len(partials))
            for number in numbers
        }

    def _over(self, text: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        with self._bound(dict(tables)):
            return self._query(text)

    def _prepared_query(
        self, plan: ViewPlan, tables: Sequence[pa.Table | None], what: Literal["events", "deltas"]
    ) -> pa.Table:
        """The prepared events, or their plain partial aggregates, by a statement that is planned once."""
        key = (id(plan), what, *(None if table is None else table.schema for table in tables))
        if key not in self._statements:
            self._statements[key] = self._prepare(plan, tables, what)
        return self._execute(self._statements[key], tables)

    def _execute(self, statement: _Statement, tables: Sequence[pa.Table | None]) -> pa.Table:
        for slot, table in zip(statement.slots, tables, strict=True):
            slot.table = table
        try:
            with _memory_errors():
                return self._connection.execute(f"EXECUTE {statement.name}").to_arrow_table()
        finally:
            for slot in statement.slots:
                slot.table = None

    def _prepare(
        self, plan: ViewPlan, tables: Sequence[pa.Table | None], what: Literal["events", "deltas"]
    ) -> _Statement:
        self._declare_udfs(plan)
        number = len(self._statements)
        slots = [_Slot(table) for table in tables]
        names = [None if table is None else f"slot_{number}_{n}" for n, table in enumerate(tables)]
        for slot, name in zip(slots, names, strict=True):
            if name is not None:
                self._connection.register(name, slot)
        events = sql.events(plan, names)
        text = events if what == "events" else sql.deltas(plan, f"({events})", counted=True)
        statement = _Statement(f"statement_{number}", slots, plan)
        self._connection.execute(f"PREPARE {statement.name} AS {text}")
        return statement

    @contextmanager
    def _unfolded(
        self,
        plan: ViewPlan,
        tables: Sequence[pa.Table | None],
        floors: Sequence[Floors | None] | None,
    ) -> Iterator[str]:
        """The prepared events that are not folded yet, as SQL over what is bound."""
        self._declare_udfs(plan)
        with ExitStack() as stack:
            names = [self._relation(stack, f"source_{n}", table) for n, table in enumerate(tables)]
            text = sql.events(plan, names)
            floor_table = _floor_table(floors)
            if floor_table is not None:
                stack.enter_context(self._bound({"floors": floor_table}))
                text = (
                    f"SELECT e.* FROM ({text}) e LEFT JOIN floors f ON f.shard = {sql.shard('e.key', plan.shards)}"
                    ' AND f.position = e.position WHERE f.floor IS NULL OR e."offset" >= f.floor'
                )
            yield text

    def _relation(self, stack: ExitStack, name: str, relation: Relation | None) -> str | None:
        if relation is None:
            return None
        if isinstance(relation, pa.Table | pa.RecordBatchReader):
            stack.enter_context(self._bound({name: relation}))
            return name
        return f"({relation.sql})"

    @contextmanager
    def _bound(self, tables: Mapping[str, pa.Table | pa.RecordBatchReader]) -> Iterator[None]:
        for name, table in tables.items():
            self._connection.register(name, table)
        try:
            yield
        finally:
            for name in tables:
                self._connection.unregister(name)

    def _read(self, text: str) -> pa.Table:
        """As `_query`; of millions of rows a third sooner, of few later."""
        with _memory_errors():
            return self._connection.sql(text).to_arrow_reader(READ_ROWS).read_all()

    def _query(self, text: str) -> pa.Table:
        with _memory_errors():
            return self._connection.sql(text).to_arrow_table()


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            "DuckDB's memory limit is too small for this step",
            got=str(error).split("\n", 1)[0],
            hint="raise the memory limit, or ask for fewer rows at once",
        ) from error


def _is_plain(plan: ViewPlan) -> bool:
    kinds = {cell.kind for cell in plan.cells}
    return kinds <= PLAIN and all(resolution.calendar is None for resolution in plan.resolutions)


def _counts(plan: ViewPlan, partials: pa.Table) -> dict[str, int]:
    """Events that counted, and nulls of each input: every event is in one tile of the first resolution."""
    first = partials.filter(pc.less(partials["tile_key"], 1 << RESOLUTION_SHIFT))
    counted = pc.sum(first["events"]).as_py() or 0
    nulls = {f"nulls_x{n}": counted - (pc.sum(first[f"valid_x{n}"]).as_py() or 0) for n in range(len(plan.inputs))}
    return {"counted": counted} | nulls


def _with_periods(plan: ViewPlan, events: pa.Table) -> pa.Table:
    """The events with the number of their local period for each resolution that is a calendar's."""
    for number, resolution in enumerate(plan.resolutions):
        if resolution.calendar is not None:
            numbers = periods(resolution.calendar).number(events["t"].to_numpy())
            events = events.append_column(f"cal{number}", pa.array(numbers))
    return events


def _floor_table(floors: Sequence[Floors | None] | None) -> pa.Table | None:
    parts = []
    for source, partitions in enumerate(floors or ()):
        for partition, floor in (partitions or {}).items():
            position = np.full(len(floor), source * sql.SOURCE_SHIFT + partition + 1)
            parts.append(np.stack([np.arange(len(floor)), position, floor]))
    if not parts:
        return None
    joined = np.concatenate(parts, axis=1)
    return pa.table({"shard": joined[0], "position": joined[1], "floor": joined[2]})


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
