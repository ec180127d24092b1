"""From where a partition must be read so that the ids of the last `dedupe_within` are known at its first event."""

from __future__ import annotations

import time
from collections.abc import Mapping

from stream.batch import Place
from stream.feed import Feed
from stream.intake import Intake
from stream.probe import timestamps_ms
from stream.settings import StreamSettings

CLOCKS_DIFFER_MS = 60_000
"""How far this machine's clock may be from the broker's, where no message says what time it is there."""


def read_from(source: Feed, intake: Intake, settings: StreamSettings, starts: Mapping[Place, int]) -> dict[Place, int]:
    """The offset to read each partition from: its start, or as far back as its topic's ids reach.

    Raises NotReady where Kafka does not answer.
    """
    back = {place: start for place, start in starts.items() if start > 0 and intake.dedupe_within_us(place[0])}
    if not back:
        return dict(starts)
    now = int(time.time() * 1_000) - CLOCKS_DIFFER_MS
    # The message before the first one to fold is not younger than that one.
    known = timestamps_ms(settings, {place: start - 1 for place, start in back.items()})
    times = {place: (known[place] or now) - intake.dedupe_within_us(place[0]) // 1_000 - 1 for place in back}
    return {place: min(starts[place], at) for place, at in (dict(starts) | source.offsets_at(times)).items()}
