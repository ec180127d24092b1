"""A view's new meaning takes over from its old one; a view is folded anew. DESIGN §5."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from batch.history import IcebergHistory
from batch.settings import BatchSettings
from features.plan import Definitions
from headrace.settings import settings_for
from headrace.terminal.stopping import stop_on_signals
from schemas.errors import ConfigError, NotReady
from schemas.event import Event
from schemas.settings import ConnectionSettings
from stream.anew import AnewProgress, fold_anew
from stream.forget import Forget
from stream.settings import StreamSettings

TAKE_OVER_S = 5.0
"""Servers and workers look every second for what is applied; until they have, the old rows are still read."""

Report = Callable[[str], None]


def bring_up(
    settings: ConnectionSettings,
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    views: Collection[str],
    report: Report,
) -> None:
    """Fold the views, as `definitions` has them, up to now; nobody reads them yet.

    Raises KeyboardInterrupt where it was stopped: what is folded stays, and the next attempt goes on from there.
    """
    names = ", ".join(views)

    def tell(progress: AnewProgress) -> None:
        waiting = f"; waiting: {progress.waiting_for}" if progress.waiting_for else ""
        report(f"folding {names} beside the old: {progress.folded:,} of {progress.of:,} events{waiting}")

    history = IcebergHistory(settings_for(BatchSettings, settings), definitions)
    sources = [source.event for name in views for source in definitions.views[name].sources]
    given = {spec.log_name: history.identity(spec.log_name) for spec in sources if spec.topic is None}
    with stop_on_signals() as stop:
        done = fold_anew(
            {name: definitions.views[name] for name in views},
            definitions,
            events,
            settings_for(StreamSettings, settings),
            history=history,
            stop=stop,
            given=given,
            progress=_seldom(tell),
        )
    if not done:
        raise KeyboardInterrupt


def rebuild(
    settings: ConnectionSettings,
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    view: str,
    report: Report,
) -> None:
    """Forget what is folded of the view, and fold it anew; until it is, it answers 'not ready', never zeros."""
    with Forget(settings_for(StreamSettings, settings)) as forget:
        forget.checkpoints(definitions.views[view])
    bring_up(settings, definitions, events, [view], report)


def forget_old(
    settings: ConnectionSettings, old: Definitions, new: Definitions, report: Report, remark: Report
) -> None:
    """Delete the rows of views that nobody reads any more, once everybody has seen what is applied."""
    gone = {view.storage_id: name for name, view in old.views.items()}
    for view in new.views.values():
        gone.pop(view.storage_id, None)
    if not gone:
        return
    names = ", ".join(gone.values())
    try:
        with Forget(settings_for(StreamSettings, settings)) as forget:
            report(f"{names}: waiting until servers and workers have turned to what is applied")
            time.sleep(TAKE_OVER_S)
            for storage_id, name in gone.items():
                remark(f"{name}: deleted {forget.state(storage_id):,} old rows and checkpoints")
    except (NotReady, ConfigError) as error:
        remark(f"old rows of {names} stay in Redis, and nobody reads them: {error}")


def _seldom(tell: Callable[[AnewProgress], None], every_s: float = 1.0) -> Callable[[AnewProgress], None]:
    """Told once a second, and when all is folded."""
    last = [0.0]

    def told(progress: AnewProgress) -> None:
        if progress.folded == progress.of or time.monotonic() - last[0] >= every_s:
            last[0] = time.monotonic()
            tell(progress)

    return told
