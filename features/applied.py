"""The applied definitions: one document a project, in the registry's database beside Feast's own tables.

Workers, servers and training read it here, without importing Feast (which takes seconds). `headrace apply` writes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import sqlalchemy as sa

from features.errors import ConfigError, DataError
from features.plan import Definitions
from features.view_plan import fingerprint

BUSY_TIMEOUT_S = 10
_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "headrace_definitions",
    _METADATA,
    sa.Column("project", sa.String(63), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("applied_at", sa.DateTime, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


def load_applied(url: str, project: str, *, of_any_version: bool = False) -> Definitions | None:
    """The project's applied definitions; None where nothing was applied yet.

    Raises ConfigError where the database can't be reached, DataError where the document was written by a version of
    headrace that gives the same words another meaning; `of_any_version` takes it all the same, to compare with.
    """
    found = _row(url, project)
    if found is None:
        return None
    try:
        definitions = Definitions.from_json(found.document)
    except msgspec.MsgspecError as error:
        raise DataError(
            "the applied definitions can't be read", where=project, got=str(error), hint="run `headrace apply` again"
        ) from error
    other = [] if of_any_version else [v.name for v in definitions.views.values() if fingerprint(v) != v.fingerprint]
    if other:
        raise DataError(
            "the definitions were applied by a version of headrace that understands them otherwise",
            where=f"project {project!r}",
            got=f"other meanings of {', '.join(other)}",
            hint="see `headrace plan`, then run `headrace apply`",
        )
    return definitions


def applied_version(url: str, project: str) -> int:
    """Raised by one whenever something else was applied; 0 before the first time. Cheap enough to ask every second."""
    found = _row(url, project, "version")
    return 0 if found is None else int(found.version)


def save_applied(url: str, definitions: Definitions) -> int:
    """Makes `definitions` the applied ones in one transaction, and answers their version. Idempotent."""
    document = definitions.to_json()
    engine = _engine(url)
    try:
        _METADATA.create_all(engine)
        with engine.begin() as connection:
            where = _TABLE.c.project == definitions.project
            found = connection.execute(sa.select(_TABLE.c.version, _TABLE.c.document).where(where)).one_or_none()
            if found is not None and found.document == document:
                return int(found.version)
            version = 1 if found is None else int(found.version) + 1
            values = {"version": version, "applied_at": datetime.now(UTC).replace(tzinfo=None), "document": document}
            if found is None:
                connection.execute(_TABLE.insert().values(project=definitions.project, **values))
            else:
                connection.execute(_TABLE.update().where(where).values(**values))
    except sa.exc.SQLAlchemyError as error:
        raise _unreachable(url, error) from error
    return version


def _row(url: str, project: str, *columns: str) -> sa.Row[tuple[object, ...]] | None:
    path = sa.engine.make_url(url)
    if path.drivername == "sqlite" and not (path.database and Path(path.database).exists()):
        return None
    engine = _engine(url)
    selected = [_TABLE.c[name] for name in columns or ("version", "document")]
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table(_TABLE.name):
                return None
            return connection.execute(sa.select(*selected).where(_TABLE.c.project == project)).one_or_none()
    except sa.exc.SQLAlchemyError as error:
        raise _unreachable(url, error) from error


@cache
def _engine(url: str) -> sa.Engine:
    options = {"timeout": BUSY_TIMEOUT_S} if url.startswith("sqlite") else {}
    return sa.create_engine(url, connect_args=options, pool_pre_ping=True)


def _unreachable(url: str, error: sa.exc.SQLAlchemyError) -> ConfigError:
    return ConfigError(
        "the registry's database can't be used",
        where=sa.engine.make_url(url).render_as_string(hide_password=True),
        got=str(getattr(error, "orig", None) or type(error).__name__),
        hint="check HEADRACE_REGISTRY_URL, or HEADRACE_HOME for the SQLite default",
    )
