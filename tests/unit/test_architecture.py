"""How the code is laid out: schemas <- features <- {stream, batch, serving} <- headrace, and small modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "schemas": {"schemas"},
    "features": {"schemas", "features"},
    "stream": {"schemas", "features", "stream"},
    "batch": {"schemas", "features", "batch"},
    "serving": {"schemas", "features", "serving"},
    "headrace": {"schemas", "features", "stream", "batch", "serving", "headrace"},
}
PACKAGES = tuple(MAY_IMPORT)
FEAST_ALLOWED = (
    "batch/feast/",
    "serving/feast/",
    "headrace/definitions/registry.py",
    "headrace/definitions/feast_types.py",
)
"""Importing Feast takes seconds: elsewhere a module may do so inside a function alone."""
ENGINES = {"features": {"confluent_kafka", "redis", "hiredis", "pyiceberg", "feast"}}
"""What a feature means knows no transport."""
LINES_MAX = 450
GRAB_BAGS = ("utils.py", "util.py", "helpers.py", "common.py", "misc.py")


def modules() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(tree: ast.AST, *, at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Top-level packages that are imported with their lines; `at_import`: only what importing the module runs."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0], node.lineno
        yield from imported(node, at_import=at_import)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name_of(file): ast.parse(file.read_text()) for file in modules()}


def test_packages_import_only_what_lies_below_them(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{name}:{line} imports {package}"
        for name, tree in trees.items()
        for package, line in imported(tree)
        if package in PACKAGES and package not in MAY_IMPORT[name.split("/")[0]]
    ]
    assert not wrong, "a sibling is handed in as a protocol, by headrace: " + "; ".join(wrong)


def test_what_a_feature_means_knows_no_transport(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{name}:{line} imports {package}"
        for name, tree in trees.items()
        for package, line in imported(tree)
        if package in ENGINES.get(name.split("/")[0], set())
    ]
    assert not wrong, "; ".join(wrong)


def test_feast_is_imported_where_it_must_be(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{name}:{line}"
        for name, tree in trees.items()
        for package, line in imported(tree, at_import=True)
        if package == "feast" and not name.startswith(FEAST_ALLOWED)
    ]
    assert not wrong, "import it inside the function: " + "; ".join(wrong)


def test_imports_are_absolute(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong, "; ".join(wrong)


def test_nothing_is_pickled(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{name}:{line} imports {package}"
        for name, tree in trees.items()
        for package, line in imported(tree)
        if package in ("pickle", "dill", "cloudpickle", "marshal", "shelve")
    ]
    assert not wrong, "; ".join(wrong)


def test_modules_fit_on_a_few_screens() -> None:
    lines = {name_of(file): len(file.read_text().splitlines()) for file in modules()}
    long = {name: count for name, count in lines.items() if count > LINES_MAX}
    assert not long, f"split them by nouns (at most {LINES_MAX} lines): {long}"


def test_there_is_no_grab_bag() -> None:
    bags = [name_of(file) for file in modules() if file.name in GRAB_BAGS]
    assert not bags, f"a helper lives beside what it helps: {bags}"


def test_every_module_says_what_it_is(trees: dict[str, ast.Module]) -> None:
    silent = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent, f"without a docstring: {silent}"
