"""Where a partition is read from, for which views, and which views must first be brought up to there. DESIGN §5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.errors import DeliveryError
from schemas.row import NO_EVENT
from stream.batch import Place
from stream.checkpoint import Positions
from stream.topics import Range


class Placement(NamedTuple):
    """`live`: the views that are fed from `start` on; `behind`: those to be brought up, and from which offset."""

    start: int
    live: tuple[str, ...]
    behind: Mapping[str, int]


def place_partition(
    place: Place,
    views: Mapping[str, Positions],
    held: Range,
    landed: int,
    *,
    batch_events_max: int,
    from_earliest: bool,
) -> Placement:
    """Decides from the views' checkpoints, what Kafka holds, and up to where the history holds the partition (0: not).

    A view more than a batch behind the others, or behind the history, waits for nobody and nobody waits for it.
    Raises DeliveryError where events would be skipped.
    """
    starts = {name: _start(place, name, view, held, landed, from_earliest) for name, view in views.items()}
    in_kafka = [start for start in starts.values() if start >= held.earliest]
    front = max(in_kafka, default=landed)
    if landed > front + batch_events_max:
        front = landed
    if front > held.end:
        raise _above_the_end(place, "the history", front, held)
    live = {n: start for n, start in starts.items() if start >= max(front - batch_events_max, held.earliest)}
    behind = {name: start for name, start in starts.items() if name not in live}
    return Placement(min(live.values(), default=front), tuple(live), behind)


def newest_below(place: Place, placement: Placement, views: Mapping[str, Positions]) -> int:
    """The newest good event below the placement's start, as the views that stand there know it."""
    standing = [name for name in placement.live if views[name].start(place) == placement.start]
    return max((views[name].newest_at_start(place) for name in standing), default=NO_EVENT)


def _start(place: Place, name: str, view: Positions, held: Range, landed: int, from_earliest: bool) -> int:
    if view.greatest(place) > held.end:
        raise _above_the_end(place, f"view {name!r}", view.greatest(place), held)
    start = view.start(place)
    if start >= held.earliest or landed >= held.earliest:
        return start
    if view.is_new(place) and landed == 0 and from_earliest:
        return held.earliest
    raise DeliveryError(
        "Kafka has deleted events that were never folded, and no history holds them",
        where=f"view {name!r}, {place[0]}/{place[1]}",
        got=f"folded up to {start}, landed up to {landed}, Kafka begins at {held.earliest}",
        hint="bring them back with `headrace import`; or, for a view without any state, begin with what there is: "
        "HEADRACE_FROM_EARLIEST=true",
    )


def _above_the_end(place: Place, who: str, offset: int, held: Range) -> DeliveryError:
    return DeliveryError(
        "a checkpoint stands above the end of its partition: Kafka lost events, or this is another Kafka",
        where=f"{place[0]}/{place[1]}",
        got=f"{who} is at {offset}, the partition ends at {held.end}",
        hint="check HEADRACE_KAFKA_BOOTSTRAP; if the events are truly gone, rebuild the view",
    )
