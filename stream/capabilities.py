"""What each runner promises, in one table: `run_worker` refuses what a runner can't do, docs/runners.md shows it.

That every event is folded once, and none skipped, is no capability: the checkpoints in Redis hold it for every runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from features.plan import Definitions
from schemas.errors import ConfigError


class Capability(StrEnum):
    """What a runner may be able to do."""

    COPIES = "drops copies of an event by its id"
    BESIDE = "brings a new or restored view up while the others go on"
    MOVES_ON = "goes on by itself when Redis was emptied or rolled back"
    SHARES = "shares partitions with other processes of its kind"
    ANY_OPTION = "takes every option of librdkafka"


@dataclass(frozen=True)
class Capabilities:
    """A runner's: what it does not promise, and why; the extra of the package that it needs."""

    extra: str
    lacks: Mapping[Capability, str] = field(default_factory=dict)

    def can(self, capability: Capability) -> bool:
        return capability not in self.lacks


CAPABILITIES: dict[str, Capabilities] = {
    "confluent": Capabilities("stream"),
    "faust": Capabilities(
        "faust", {Capability.ANY_OPTION: "Faust has words for TLS and for SASL by name and password alone"}
    ),
    "spark": Capabilities(
        "spark",
        {
            Capability.COPIES: "a task remembers no ids of the batch before",
            Capability.BESIDE: "views are brought up before the query starts",
            Capability.SHARES: "the query has all partitions, and Spark spreads them over its executors",
            Capability.ANY_OPTION: "Spark reads with Kafka's Java client",
        },
    ),
}


def check_runner(runner: str, definitions: Definitions) -> None:
    """Raises ConfigError where the runner can't do what the definitions need, or is none."""
    if runner not in CAPABILITIES:
        raise ConfigError("no such runner", got=repr(runner), hint=f"there are: {', '.join(CAPABILITIES)}")
    lacks = CAPABILITIES[runner].lacks
    with_ids = [name for name, event in definitions.events.items() if event.topic is not None and event.id is not None]
    if with_ids and Capability.COPIES in lacks:
        raise ConfigError(
            f"the runner {runner} does not drop copies of events",
            where=", ".join(with_ids),
            got=f"events with an id; {lacks[Capability.COPIES]}",
            hint="run them with --runner confluent or faust",
        )
