"""Where in a user's files a declaration stands, so that every error about it can say so."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from features.errors import DefinitionError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PACKAGE = Path(__file__).parent
_OWN_FILES = {str(path) for path in _PACKAGE.glob("*.py")}


@dataclass(frozen=True)
class Place:
    """A file and a line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def caller() -> Place:
    """The nearest frame outside the language itself: the line of the user's declaration."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in _OWN_FILES:
        frame = frame.f_back
    return Place(_short(frame.f_code.co_filename), frame.f_lineno)


def check_name(what: str, name: object) -> str:
    """The name, if it is one that every system takes. Raises DefinitionError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        raise DefinitionError(
            f"a name of {what} is lower-case letters, digits and single underscores, a letter first, at most 63",
            got=repr(name),
            hint='write it like "airport_delays" (two underscores separate view and feature)',
        )
    return name


def _short(file: str) -> str:
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return file
