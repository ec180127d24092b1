"""Settings for commands: read from the environment and headrace.toml, and explained where they can't be taken."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from headrace.terminal.output import say
from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings, explain_settings

SomeSettings = TypeVar("SomeSettings", bound=ConnectionSettings)

PREFIX = "HEADRACE_"
FILE = Path("headrace.toml")
KINDS = (
    ("stream.settings", "StreamSettings"),
    ("batch.settings", "BatchSettings"),
    ("serving.settings", "ServingSettings"),
)
MISSPELT = 0.8
"""How alike a name must be to a setting's to be taken for a misspelt one."""


def read_settings(kind: type[SomeSettings], **given: object) -> SomeSettings:
    """A package's settings; `given` (a command's options) go before the environment, None means not given.

    `home` is absolute, so that what is written down about it holds from every working folder. A name that looks like a
    misspelt setting is remarked on. Raises ConfigError.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        settings = kind(**chosen)
    except ValidationError as error:
        raise explain_settings(error) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("headrace.toml isn't TOML", got=str(error), hint="mend the line") from None
    _remark_on_misspelt(kind)
    return settings.model_copy(update={"home": settings.home.absolute()})


def settings_for(kind: type[SomeSettings], settings: ConnectionSettings) -> SomeSettings:
    """Another package's settings, told the same as these."""
    return read_settings(kind, **{name: getattr(settings, name) for name in settings.model_fields_set})


def _remark_on_misspelt(kind: type[ConnectionSettings]) -> None:
    """Settings of other packages are none of this one's business, so an unknown name alone says nothing."""
    for shown, name in _given_names():
        close = get_close_matches(name, kind.model_fields, n=1, cutoff=MISSPELT)
        if name not in kind.model_fields and close and name not in _all_names():
            meant = PREFIX + close[0].upper() if shown.startswith(PREFIX) else close[0]
            say(f"{shown} is no setting and is not used; did you mean {meant}?")


def _given_names() -> Iterator[tuple[str, str]]:
    yield from ((name, name.removeprefix(PREFIX).lower()) for name in os.environ if name.startswith(PREFIX))
    if FILE.exists():
        yield from ((name, name) for name in tomllib.loads(FILE.read_text()))


def _all_names() -> set[str]:
    names = set(ConnectionSettings.model_fields)
    for module, name in KINDS:
        # A host may have installed one part alone.
        with suppress(ImportError):
            names |= set(getattr(import_module(module), name).model_fields)
    return names
