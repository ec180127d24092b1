"""One module for each file of the definitions, whatever names it is imported by.

Python makes a module for each name; two would be two declarations of every view.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGE = "headrace_definitions"
"""The package under which the files are run, so that no file name shadows a module of the standard library."""


class OneModuleAFile(MetaPathFinder):
    """Finds modules as Python does; those of the folder's files it runs once and hands out under every name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a further name of a file in the folder; None, for others to find, of every other module."""
        if fullname == PACKAGE:
            return _namespace(self.folder)
        if fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not spec.has_location:
            return None
        file = Path(spec.origin).resolve()
        if not file.is_relative_to(self.folder) or file.name == "__init__.py":
            return None
        spec.loader = _Alias(module_name(self.folder, file))
        return spec

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Python's imports go through here, and find the folder's files and those beside the working folder too."""
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        importlib.invalidate_caches()
        self._take_over_imported()
        path = list(sys.path)
        before = set(sys.modules)
        # Behind everything else: a file named like an installed module hides nothing.
        places = (Path.cwd(), self.folder.parent, self.folder)
        sys.path += [str(place) for place in places if str(place) not in sys.path]
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            sys.path[:] = path
            self._forget_aliases(before)

    def _take_over_imported(self) -> None:
        """Modules of the folder that this process has imported by itself stay the files' one module."""
        for module in list(sys.modules.values()):
            if file := self._file(module):
                sys.modules[module_name(self.folder, file)] = module

    def _forget_aliases(self, before: set[str]) -> None:
        """Another folder may have files of the same names: they are found anew by the next load."""
        for name in set(sys.modules) - before:
            if name.split(".")[0] != PACKAGE and self._file(sys.modules[name]):
                del sys.modules[name]

    def _file(self, module: types.ModuleType) -> Path | None:
        """The module's file if it is one of the folder's."""
        file = getattr(module, "__file__", None)
        return Path(file).resolve() if file and Path(file).resolve().is_relative_to(self.folder) else None


def module_name(folder: Path, file: Path) -> str:
    """The name under which the file is run."""
    return ".".join((PACKAGE, *file.relative_to(folder).with_suffix("").parts))


class _Alias(Loader):
    """Loads a module by its one name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """The file's one module, half-run if an import goes in a circle (as in Python)."""
        return importlib.import_module(self.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """It has run already."""


def _namespace(folder: Path) -> ModuleSpec:
    spec = ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec
