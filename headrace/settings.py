"""Settings for commands: read from the environment and headrace.toml, and explained where they can't be taken."""

from __future__ import annotations

import tomllib
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings, explain_settings

SomeSettings = TypeVar("SomeSettings", bound=ConnectionSettings)


def read_settings(kind: type[SomeSettings], **given: object) -> SomeSettings:
    """A package's settings; `given` (a command's options) go before the environment, None means not given.

    `home` is absolute, so that what is written down about it holds from every working folder. Raises ConfigError.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        settings = kind(**chosen)
    except ValidationError as error:
        raise explain_settings(error) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("headrace.toml isn't TOML", got=str(error), hint="mend the line") from None
    return settings.model_copy(update={"home": settings.home.absolute()})


def settings_for(kind: type[SomeSettings], settings: ConnectionSettings) -> SomeSettings:
    """Another package's settings, told the same as these."""
    return read_settings(kind, **{name: getattr(settings, name) for name in settings.model_fields_set})
