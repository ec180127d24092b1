"""Plain Feast views beside headrace's own: read, pushed to and materialised by Feast itself, in threads.

Feast is imported when the first such request comes (it takes seconds), and never for a project that has none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from features.plan import Definitions
from schemas.errors import ConfigError
from serving.settings import ServingSettings

if TYPE_CHECKING:
    from serving.feast.backend import Backend

TABLES = {
    "feature_views": "feature_view_name",
    "stream_feature_views": "feature_view_name",
    "on_demand_feature_views": "feature_view_name",
    "feature_services": "feature_service_name",
}
"""Where Feast's SQL registry keeps what can be read, and the column with its name."""


class Plain:
    """The project's Feast store, opened when it is first needed."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._backend: Backend | None = None
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None

    async def knows(self, what: str | Sequence[str]) -> bool:
        """True where Feast's registry has all the views (or the service) that a request names."""
        names = (
            {what} if isinstance(what, str) else {reference.partition(":")[0].partition("@")[0] for reference in what}
        )
        return names <= await asyncio.to_thread(self._registered, names)

    async def read(
        self, what: str | Sequence[str], entities: dict[str, list[Any]], full_feature_names: bool, *, versions: bool
    ) -> dict[str, Any]:
        """Feast's own answer. Raises RequestError, NotFound or NotReady."""
        backend = await self.backend()
        return await asyncio.to_thread(backend.read_dict, what, entities, full_feature_names, versions)

    async def write(
        self, path: str, request: dict[str, Any], query: dict[str, str], definitions: Definitions | None
    ) -> Any:
        """One of Feast's routes that write. Raises RequestError, NotFound or NotReady."""
        backend = await self.backend()
        return await asyncio.to_thread(backend.write, path, request, query, definitions)

    async def backend(self) -> Backend:
        """Feast's store behind it all. Raises ConfigError where Feast is not installed or has no store here."""
        return await asyncio.to_thread(self._open)

    def _open(self) -> Backend:
        with self._lock:
            if self._backend is None:
                try:
                    from serving.feast.backend import Backend  # noqa: PLC0415 (takes seconds, and is optional)
                except ImportError as error:
                    raise ConfigError(
                        "plain Feast views need Feast", got=str(error), hint="pip install 'headrace[feast]'"
                    ) from error
                self._backend = Backend(self._settings.home)
            return self._backend

    def _registered(self, names: set[str]) -> set[str]:
        if self._engine is None:
            self._engine = sa.create_engine(self._settings.registry_address(), pool_pre_ping=True)
        found: set[str] = set()
        try:
            with self._engine.connect() as connection:
                present = set(sa.inspect(connection).get_table_names())
                for table, column in TABLES.items():
                    if table in present:
                        name: sa.ColumnClause[str] = sa.column(column)
                        where = sa.and_(name.in_(names), sa.column("project_id") == self._settings.project)
                        found |= set(
                            connection.execute(sa.select(name).select_from(sa.table(table)).where(where)).scalars()
                        )
        except sa.exc.SQLAlchemyError as error:
            raise ConfigError(
                "Feast's registry can't be read", got=type(error).__name__, hint="is HEADRACE_HOME right?"
            ) from error
        return found
