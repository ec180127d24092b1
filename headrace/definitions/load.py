"""The definitions of a project: every Python file of a folder is run, and what it declares is collected.

A file is run once, by whatever name another one imports it: as a neighbour (`from events import Trip`), relatively
(`from .events import Trip`) or from the folder above (`from features.views.events import Trip`). A project's own
`schemas` folder stands beside headrace's: `from schemas.trips import Trip` finds it.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb

from features.plan import Definitions
from features.planner import compile_definitions, event_types, is_declaration
from headrace.definitions.one_module import OneModuleAFile, module_name
from schemas.errors import ConfigError, DefinitionError, HeadraceError
from schemas.event import Event

SHARED_PACKAGES = ("schemas", "features")
"""Packages of headrace that a project extends with folders of its own of the same name."""


@dataclass(frozen=True)
class Loaded:
    """What a folder declares. `events` are the classes that decode, by name."""

    folder: Path
    declared: tuple[object, ...]
    events: Mapping[str, type[Event]]


def load(folder: Path) -> Loaded:
    """Run the folder's files and collect their declarations.

    Raises ConfigError where there is no such folder or no file in it, and DefinitionError naming each broken file with
    its line, the fact and the next step.
    """
    files = definition_files(folder)
    folder = folder.resolve()
    _extend_shared_packages(folder)
    declared: dict[int, object] = {}
    broken: dict[str, DefinitionError] = {}
    with OneModuleAFile(folder).installed():
        for file in files:
            try:
                module = importlib.import_module(module_name(folder, file))
            except (Exception, SystemExit) as error:
                # A file that imports a broken one fails at the same place: it is said once.
                place = _place(folder, file, error)
                broken.setdefault(place, _explain(place, error))
            else:
                declared |= {id(value): value for value in _declarations(module)}
    if broken:
        raise _together(list(broken.values()))
    if not declared:
        raise DefinitionError(
            f"nothing is declared in {folder}",
            got=f"{len(files)} Python files without an event, a view or a service",
            hint="declare a FeatureView at the top level of a file",
        )
    values = tuple(declared.values())
    return Loaded(folder, values, event_types(values))


def load_definitions(folder: Path, project: str) -> tuple[Loaded, Definitions]:
    """The folder's declarations and the document they compile to. Raises as `load` and `compile_definitions` do."""
    loaded = load(folder)
    return loaded, compile_definitions(project, loaded.declared)


def definition_files(folder: Path) -> list[Path]:
    """The Python files in the folder and below, in a fixed order; names that start with a dot or `_` are left out."""
    if not folder.is_dir():
        raise ConfigError(
            "the folder of definitions isn't there",
            got=str(folder.absolute()),
            hint="name it: HEADRACE_DEFINITIONS=path/to/folder (files that declare events, views and services)",
        )
    files = [
        file.resolve()
        for file in sorted(folder.rglob("*.py"))
        if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    ]
    if not files:
        raise ConfigError(
            "the folder of definitions holds no Python file",
            got=str(folder.absolute()),
            hint="write one that declares a FeatureView, or name another folder in HEADRACE_DEFINITIONS",
        )
    return files


def _declarations(module: types.ModuleType) -> Iterator[object]:
    for value in vars(module).values():
        abstract = isinstance(value, type) and issubclass(value, Event) and value.__event_spec__ is None
        if is_declaration(value) and not abstract:
            yield value


def _extend_shared_packages(folder: Path) -> None:
    """A project's `schemas` and `features` beside the working folder or the definitions; headrace's own come first."""
    for name in SHARED_PACKAGES:
        path = importlib.import_module(name).__path__
        for root in (Path.cwd(), folder.parent, folder.parent.parent):
            candidate = str(root / name)
            if Path(candidate).is_dir() and candidate not in path:
                path.append(candidate)


def _explain(place: str, error: BaseException) -> DefinitionError:
    """The error of a file that could not be run, its place named."""
    if isinstance(error, HeadraceError):
        file = place.rsplit(":", 1)[0]
        named = error if file in str(error) else error.at(place)
        return named if isinstance(named, DefinitionError) else DefinitionError(str(named))
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        return DefinitionError("the file isn't Python", where=place, got=f"{error.msg}: {line!r}", hint="mend the line")
    if isinstance(error, ModuleNotFoundError):
        hint = "put the file beside this one, or install the package"
        return DefinitionError("an import isn't found", where=place, got=repr(error.name), hint=hint)
    if isinstance(error, ImportError):
        return DefinitionError("an import fails", where=place, got=error.msg, hint=_import_hint(error))
    if isinstance(error, NameError):
        return DefinitionError("a name isn't defined", where=place, got=repr(error.name), hint=_name_hint(error))
    return DefinitionError(
        "the file fails while it is run", where=place, got=f"{type(error).__name__}: {error}", hint="mend the line"
    )


def _place(folder: Path, file: Path, error: BaseException) -> str:
    """`file:line` of the innermost frame in the user's files: where the mistake stands, not who noticed it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(Path(error.filename))}:{error.lineno or 1}"
    own = [
        frame
        for frame in extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder)
        or (frame.name == "<module>" and Path(frame.filename).parent.name in SHARED_PACKAGES)
    ]
    return f"{_shown(Path(own[-1].filename))}:{own[-1].lineno}" if own else f"{_shown(file)}:1"


def _shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _import_hint(error: ImportError) -> str:
    wanted = error.msg.split("'")[1] if "'" in error.msg else ""
    module = sys.modules.get(error.name or "")
    if module is None:
        return "mend the import"
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    close = get_close_matches(wanted, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{error.name} has: {', '.join(sorted(names)[:40])}"


def _name_hint(error: NameError) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    close = get_close_matches(error.name or "", frame.tb_frame.f_globals if frame else (), n=1)
    return f"did you mean {close[0]!r}?" if close else "import it"


def _together(errors: list[DefinitionError]) -> DefinitionError:
    if len(errors) == 1:
        return errors[0]
    lines = "".join(f"\n  {error}" for error in errors)
    return DefinitionError(f"{len(errors)} mistakes in the definitions:{lines}")
