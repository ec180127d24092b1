"""The exceptions of headrace, as the language raises them; the tree is drawn in schemas/errors.py."""

from schemas.errors import (
    ChangedMeaning,
    ConfigError,
    DataError,
    DefinitionError,
    DeliveryError,
    HeadraceError,
    NotReady,
    RequestError,
)

__all__ = [
    "ChangedMeaning",
    "ConfigError",
    "DataError",
    "DefinitionError",
    "DeliveryError",
    "HeadraceError",
    "NotReady",
    "RequestError",
]
