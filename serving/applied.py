"""The applied definitions as a server follows them: polled, and taken up whole, between two requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from features.applied import applied_version, load_applied
from features.plan import Definitions
from schemas.errors import HeadraceError, NotReady
from serving.settings import ServingSettings

_LOGGER = logging.getLogger(__name__)


class Applied:
    """`take` is called with (definitions, version) at the start and whenever something else was applied.

    A registry that can't be reached is reported once and changes nothing: what was taken last is served on.
    """

    def __init__(self, settings: ServingSettings, take: Callable[[Definitions, int], None]) -> None:
        self._url = settings.registry_address()
        self._project = settings.project
        self._every_s = settings.definitions_poll_ms / 1_000
        self._take = take
        self.version = 0
        self.trouble = ""

    async def refresh(self) -> None:
        """Looks once. Raises what the registry raises."""
        version = await asyncio.to_thread(applied_version, self._url, self._project)
        if version != self.version:
            definitions = await asyncio.to_thread(load_applied, self._url, self._project)
            if definitions is not None:
                self._take(definitions, version)
                self.version = version

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            try:
                await self.refresh()
                self.trouble = ""
            except HeadraceError as error:
                if not self.trouble:
                    _LOGGER.warning("what is applied can't be read; serving what was: %s", error)
                self.trouble = str(error)
            await asyncio.sleep(self._every_s)


def nothing_applied(project: str) -> NotReady:
    """There are no definitions yet."""
    return NotReady(
        "nothing has been applied yet", where=f"project {project!r}", hint="run `headrace apply`, then ask again"
    )
