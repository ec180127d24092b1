"""Names that a shell completes, of what is applied. Where they can't be found nothing is said: it only helps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.plan import Definitions


def services(incomplete: str) -> list[str]:
    """Applied services."""
    found = _applied()
    return [] if found is None else _beginning(incomplete, found.services)


def views(incomplete: str) -> list[str]:
    """Applied views, derived ones left out."""
    found = _applied()
    return [] if found is None else _beginning(incomplete, found.views)


def any_views(incomplete: str) -> list[str]:
    """Applied views of both kinds."""
    found = _applied()
    return [] if found is None else _beginning(incomplete, [*found.views, *found.derived])


def events(incomplete: str) -> list[str]:
    """Applied event types."""
    found = _applied()
    return [] if found is None else _beginning(incomplete, found.events)


def keys(incomplete: str) -> list[str]:
    """Join keys and request columns, with the equals sign that follows."""
    found = _applied()
    if found is None:
        return []
    names = [key.name for view in found.views.values() for key in view.keys]
    names += [column.name for view in found.derived.values() for column in view.request]
    return _beginning(incomplete, [f"{name}=" for name in dict.fromkeys(names)])


def _applied() -> Definitions | None:
    from features.applied import load_applied
    from headrace.settings import read_settings
    from schemas.errors import HeadraceError
    from schemas.settings import ConnectionSettings

    try:
        settings = read_settings(ConnectionSettings)
        return load_applied(settings.registry_address(), settings.project)
    except HeadraceError:
        return None


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
