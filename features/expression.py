"""User expressions: parsed, checked and bound against a schema when they are declared. DESIGN §1, §2.

An expression is one SQL value of DuckDB's dialect over columns. Allowed are functions that DuckDB lists as CONSISTENT;
refused are aggregates, windows, subqueries, parameters and anything that depends on a session, a clock or chance.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import duckdb
import orjson

from features.errors import DefinitionError
from schemas.types import TypeNotSupported, duckdb_type, from_duckdb

REFUSED_CLASSES = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
    "POSITIONAL_REFERENCE": "a positional reference",
}
BOUND_KEPT_MAX = 4_096
REFUSED_CLAUSES = ("where_clause", "having", "sample", "qualify")


@dataclass(frozen=True)
class Bound:
    """A checked expression: its canonical text (white space and comments gone), its type, the columns it reads."""

    sql: str
    type: str
    columns: frozenset[tuple[str, ...]]


def bind(text: str, columns: Mapping[str, str | Mapping[str, str]]) -> Bound:
    """Checks `text` over columns (name -> type; a view's name -> its features' types).

    Raises DefinitionError with the fact and the next step: it does not parse, is more than one value, names an unknown
    column or function, isn't a pure function of its row, or has no type that headrace keeps.
    """
    return _bind(text, tuple((name, t if isinstance(t, str) else tuple(t.items())) for name, t in columns.items()))


@lru_cache(maxsize=BOUND_KEPT_MAX)
def _bind(text: str, schema: tuple[tuple[str, str | tuple[tuple[str, str], ...]], ...]) -> Bound:
    """The same, by what can be remembered: a definition's conditions come again with each of its features."""
    columns = {name: t if isinstance(t, str) else dict(t) for name, t in schema}
    node = _parse(text)
    used = frozenset(_check(node, columns, frozenset()))
    sql = _canonical(text)
    return Bound(sql, _type_of(sql, text, columns), used)


def quote(name: str) -> str:
    """An identifier of ours as SQL."""
    return '"' + name.replace('"', '""') + '"'


class _Planner:
    """The process's connection for parsing and binding; it never sees an event."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._lock = threading.Lock()

    def rows(self, sql: str, parameters: list[str] | None = None) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, parameters or []).fetchall()


@cache
def _planner() -> _Planner:
    return _Planner()


def _parse(text: str) -> dict[str, Any]:
    answer = orjson.loads(_planner().rows("SELECT json_serialize_sql(?::VARCHAR)", ["SELECT " + text])[0][0])
    if answer["error"]:
        raise DefinitionError(
            "the expression does not parse",
            got=repr(text),
            hint=f"DuckDB says: {answer['error_message']}",
        )
    statements = answer["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    plain = (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and not node["select_list"][0]["alias"]
        and node["from_table"]["type"] == "EMPTY"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not node["group_expressions"]
        and not any(node.get(clause) for clause in REFUSED_CLAUSES)
    )
    if not plain:
        raise DefinitionError(
            "an expression is one value, not a query", got=repr(text), hint='write it as in "dep_delay_min > 15"'
        )
    value: dict[str, Any] = node["select_list"][0]
    return value


def _canonical(text: str) -> str:
    sql = _planner().rows("SELECT json_deserialize_sql(json_serialize_sql(?::VARCHAR))", ["SELECT " + text])[0][0]
    return str(sql).removeprefix("SELECT ")


def _check(
    node: Any, columns: Mapping[str, str | Mapping[str, str]], local: frozenset[str]
) -> Iterator[tuple[str, ...]]:
    """Walks the parse tree, yields the columns it names; `local` are a lambda's own parameters."""
    if isinstance(node, list):
        for child in node:
            yield from _check(child, columns, local)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind in REFUSED_CLASSES:
        raise DefinitionError(
            f"an expression may not contain {REFUSED_CLASSES[kind]}",
            hint="it sees one event at a time; aggregate with Sum, Mean, … instead",
        )
    if kind == "COLUMN_REF":
        names = tuple(node["column_names"])
        if names[0] not in local:
            yield _resolve(names, columns)
        return
    if kind == "LAMBDA":
        local = local | _lambda_parameters(node.get("lhs"))
    if kind == "FUNCTION":
        _check_function(node["function_name"])
        if node.get("distinct") or node.get("filter") or (node.get("order_bys") or {}).get("orders"):
            raise DefinitionError(
                "an expression may not aggregate", got=node["function_name"], hint="use Sum, Mean, Count, … instead"
            )
    for name, child in node.items():
        if name not in ("lhs",) or kind != "LAMBDA":
            yield from _check(child, columns, local)


def _lambda_parameters(node: Any) -> frozenset[str]:
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        return frozenset({node["column_names"][-1]})
    children = node.get("children", []) if isinstance(node, dict) else []
    return frozenset().union(*(_lambda_parameters(child) for child in children))


def _resolve(names: tuple[str, ...], columns: Mapping[str, str | Mapping[str, str]]) -> tuple[str, ...]:
    folded = {name.lower(): name for name in columns}
    column = folded.get(names[0].lower())
    if column is None:
        raise DefinitionError("no such column", got=repr(".".join(names)), hint=_suggestion(names[0], list(columns)))
    inner = columns[column]
    if isinstance(inner, str):
        return (column,)
    if len(names) < 2 or names[1] not in inner:
        raise DefinitionError(
            f"{column} has no such feature",
            got=repr(".".join(names)),
            hint=_suggestion(names[1] if len(names) > 1 else "", [f"{feature}" for feature in inner]),
        )
    return (column, names[1])


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(known)}"


@cache
def _functions() -> dict[str, set[tuple[str, str | None]]]:
    functions: dict[str, set[tuple[str, str | None]]] = {}
    for name, kind, stability in _planner().rows(
        "SELECT function_name, function_type, stability FROM duckdb_functions()"
    ):
        functions.setdefault(name, set()).add((kind, stability))
    return functions


def _check_function(name: str) -> None:
    kinds = _functions().get(name.lower())
    if kinds is None:
        raise DefinitionError(
            "no such function", got=name, hint=_suggestion(name, [n for n in _functions() if n.isidentifier()])
        )
    if any(kind == "aggregate" for kind, _ in kinds):
        raise DefinitionError(
            "an expression may not aggregate", got=f"{name}()", hint="use Sum, Mean, Count, … with over= instead"
        )
    if ("scalar", "CONSISTENT") in kinds and not any(s not in (None, "CONSISTENT") for _, s in kinds):
        return
    if any(kind == "macro" for kind, _ in kinds):
        _check_macro(name.lower())
        return
    raise DefinitionError(
        "only functions of their row alone are allowed",
        got=f"{name}()",
        hint="an expression may not depend on the clock, on chance or on a session; use an event's own column",
    )


def _check_macro(name: str) -> None:
    definitions = _planner().rows(
        "SELECT macro_definition FROM duckdb_functions() WHERE function_name = ? AND function_type = 'macro'", [name]
    )
    for (definition,) in definitions:
        for function in _called(_parse(definition)):
            _check_function(function)


def _called(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _called(child)
    elif isinstance(node, dict):
        if node.get("class") in REFUSED_CLASSES:
            raise DefinitionError("only functions of their row alone are allowed", got="a macro over a query")
        if node.get("class") == "FUNCTION":
            yield node["function_name"]
        for child in node.values():
            yield from _called(child)


def _type_of(sql: str, text: str, columns: Mapping[str, str | Mapping[str, str]]) -> str:
    nulls = ", ".join(f"NULL::{_duckdb_type(type_name)} AS {quote(name)}" for name, type_name in columns.items())
    source = f"(SELECT {nulls})" if nulls else "(SELECT 1)"
    try:
        described = _planner().rows(f"DESCRIBE SELECT ({sql}) AS x FROM {source}")
    except duckdb.Error as error:
        message = str(error).split("\n", 1)[0]
        raise DefinitionError("the expression has no meaning", got=repr(text), hint=f"DuckDB says: {message}") from None
    try:
        return from_duckdb(described[0][1])
    except TypeNotSupported as error:
        raise DefinitionError(
            "the expression has a type that headrace does not keep",
            got=f"{text!r} of type {described[0][1]}",
            hint=f"cast it, as in (x)::DOUBLE ({error})",
        ) from None


def _duckdb_type(type_name: str | Mapping[str, str]) -> str:
    if isinstance(type_name, str):
        return duckdb_type(type_name)
    return "STRUCT(" + ", ".join(f"{quote(n)} {duckdb_type(t)}" for n, t in type_name.items()) + ")"
