"""Views over tables and files: folded into Redis when they are new, and anew when they have changed. DESIGN §5.

What was folded stands in the shards' checkpoints as a topic's id does: a table's snapshot, or a hash of the files.
While a view is folded anew it answers 'not ready', never a mixture.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from features.plan import Definitions, ViewPlan
from schemas.event import Event
from stream.anew import AnewProgress, fold_anew
from stream.forget import Forget
from stream.history import IMPORTED, History
from stream.settings import StreamSettings
from stream.store import Store

ATTEMPTS_MAX = 5
"""Of two workers that begin at once one may undo what the other began; whoever comes last does it all."""

log = logging.getLogger(__name__)


class GivenHistory(History, Protocol):
    """A history that holds tables and files too, by the log's name, as they were when their identity was last asked."""

    def identity(self, log: str) -> bytes:
        """What tells this content from another: 16 bytes."""


def fold_given(
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: StreamSettings,
    history: GivenHistory,
    stop: threading.Event,
    progress: Callable[[AnewProgress], None] = lambda _: None,
) -> list[str]:
    """Folds the views whose tables or files are other ones than those that were folded; their names.

    A table or file that is as it was costs a look. Raises NotReady where Redis is away.
    """
    plans = {
        name: plan
        for name, plan in definitions.views.items()
        if any(source.event.topic is None for source in plan.sources)
    }
    if not plans:
        return []
    folded: list[str] = []
    for _ in range(ATTEMPTS_MAX):
        identities = {
            source.event.log_name: history.identity(source.event.log_name)
            for plan in plans.values()
            for source in plan.sources
            if source.event.topic is None
        }
        behind = {name: plan for name, plan in plans.items() if not _is_folded(plan, identities, history, settings)}
        if not behind or stop.is_set():
            break
        log.info("folding %s from tables and files", ", ".join(behind))
        with Forget(settings) as forget:
            for plan in behind.values():
                if _holds_another(plan, identities, settings):
                    forget.checkpoints(plan)
        fold_anew(
            behind, definitions, events, settings, history=history, stop=stop, progress=progress, given=identities
        )
        folded += [name for name in behind if name not in folded]
    return folded


def _is_folded(plan: ViewPlan, identities: Mapping[str, bytes], history: History, settings: StreamSettings) -> bool:
    """Whether every shard has folded this very content to its end."""
    found = _entries(plan, settings)
    for number, source in enumerate(plan.sources):
        if source.event.topic is not None:
            continue
        end = history.offsets(source.event.log_name)[IMPORTED]
        wanted = (identities[source.event.log_name], end)
        if any(shard.get(number) != wanted for shard in found):
            return False
    return True


def _holds_another(plan: ViewPlan, identities: Mapping[str, bytes], settings: StreamSettings) -> bool:
    names = {n: source.event.log_name for n, source in enumerate(plan.sources) if source.event.topic is None}
    return any(
        identity != identities[names[number]]
        for shard in _entries(plan, settings)
        for number, (identity, _) in shard.items()
        if number in names
    )


def _entries(plan: ViewPlan, settings: StreamSettings) -> list[dict[int, tuple[bytes, int]]]:
    """For each shard what its checkpoint says of each source's partition IMPORTED: identity and offset."""
    store = Store.open(settings)
    try:
        checkpoints = store.checkpoints(plan)
    finally:
        store.close()
    return [
        {}
        if checkpoint is None
        else {p.source: (p.topic_id, p.offset) for p in checkpoint.positions if p.partition == IMPORTED}
        for checkpoint in checkpoints
    ]
