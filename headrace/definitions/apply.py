"""`plan` and `apply`: the declared definitions beside the applied ones, and made so.

The applied document is written last: a crash in between leaves the old one, and the next `apply` repeats every step.
Each step is idempotent and makes only what is missing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from features.applied import load_applied, save_applied
from features.plan import Definitions
from headrace.definitions.diff import Action, Diff, compare, refuse_new_meanings
from headrace.definitions.load import Loaded, load_definitions
from headrace.definitions.udf_check import check_udfs
from schemas.enriched import Deployment
from schemas.errors import DataError, NotReady
from schemas.settings import ConnectionSettings

Report = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """What is declared, what is applied, and how they differ."""

    loaded: Loaded
    declared: Definitions
    applied: Definitions | None
    diff: Diff


def plan(settings: ConnectionSettings, replace: Collection[str] = ()) -> Planned:
    """Load the definitions and compare. Raises DefinitionError for every mistake in them."""
    loaded, declared = load_definitions(settings.definitions, settings.project)
    applied = _applied(settings)
    return Planned(loaded, declared, applied, compare(applied, declared, replace))


def apply(settings: ConnectionSettings, planned: Planned, report: Report, remark: Report | None = None) -> None:
    """Make the declared definitions the applied ones: topics, tables, Feast's registry, and last the document.

    A replaced view is folded beside the old one first, so that it takes over whole; then the old one's rows go.
    `report` is told what is being done, `remark` what a person should keep in mind (None: the same function). Raises
    ChangedMeaning where a registered name would change its meaning and --replace did not name it, DefinitionError for a
    udf whose values depend on a batch's other rows.
    """
    refuse_new_meanings(planned.diff)
    check_udfs(planned.declared)
    remark = remark or report
    from stream.deployments import deploy
    from stream.topics import ensure_topics

    with _alone(settings):
        _check_still_planned(settings, planned)
        report("Kafka's topics")
        ensure_topics(settings, planned.declared, remark)
        deployments = deploy(settings, planned.declared)
        if planned.diff.replaced_views:
            _bring_up(settings, planned, report)
        else:
            _make_tables(settings, planned, deployments, report, remark)
        report("Feast's registry (importing Feast takes a few seconds)")
        from headrace.definitions.registry import write_registry

        write_registry(settings, planned.declared)
        if planned.diff.replaced_views:
            # What has come in meanwhile; then the tables, which workers of the old meaning still write to.
            _bring_up(settings, planned, report)
            _make_tables(settings, planned, deployments, report, remark)
        save_applied(settings.registry_address(), planned.declared)
        if planned.applied is not None and _some_state_goes(planned.diff):
            from headrace.definitions.replace import forget_old

            forget_old(settings, planned.applied, planned.declared, report, remark)


def _applied(settings: ConnectionSettings) -> Definitions | None:
    try:
        return load_applied(settings.registry_address(), settings.project, of_any_version=True)
    except DataError:
        # Another version wrote a document that this one can't read: there is nothing to compare with.
        return None


def _check_still_planned(settings: ConnectionSettings, planned: Planned) -> None:
    """Somebody may have applied something else between the comparison and the lock."""
    if _applied(settings) != planned.applied:
        raise NotReady(
            "other definitions have been applied in the meantime",
            got=f"project {settings.project!r}",
            hint="see `headrace plan` again",
        )


def _make_tables(
    settings: ConnectionSettings,
    planned: Planned,
    deployments: Mapping[str, Deployment],
    report: Report,
    remark: Report,
) -> None:
    from batch.enriched import keep_deployments
    from batch.set_aside import set_aside
    from batch.settings import BatchSettings
    from batch.tables import ensure_tables
    from headrace.settings import settings_for

    report("Iceberg's tables")
    batch = settings_for(BatchSettings, settings)
    if planned.diff.replaced_views:
        set_aside(batch, planned.declared, remark)
    ensure_tables(batch, planned.declared, remark)
    keep_deployments(batch, deployments)


def _bring_up(settings: ConnectionSettings, planned: Planned, report: Report) -> None:
    from headrace.definitions.replace import bring_up

    bring_up(settings, planned.declared, planned.loaded.events, planned.diff.replaced_views, report)


def _some_state_goes(diff: Diff) -> bool:
    return any(change.kind == "view" and change.action in (Action.REPLACE, Action.REMOVE) for change in diff.changes)


@contextmanager
def _alone(settings: ConnectionSettings) -> Iterator[None]:
    """One `apply` of a home at a time. The kernel lets go of the lock when its holder ends."""
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = os.open(settings.home / "apply.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(lock, settings)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, settings: ConnectionSettings) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotReady(
            "another `headrace apply` is at work", got=str(settings.home), hint="run it again when that one is done"
        ) from None
