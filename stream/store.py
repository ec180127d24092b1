"""Redis as a worker uses it: checkpoints read, script calls pipelined, failures told apart by what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from features.plan import ViewPlan
from schemas.errors import ConfigError, DeliveryError, NotReady
from schemas.row import Checkpoint, checkpoint_redis_key
from stream.script import Script
from stream.settings import StreamSettings
from stream.wire import Command, Wire, open_wire

DAMAGE = "HEADRACE"
"""How merge.lua begins an error of its own: a call or a stored value that can't be."""


class StoreUnavailable(NotReady):
    """Redis did not answer, or refuses to work for now: what was sent may have been done or not."""


class Call(NamedTuple):
    """One run of the merge script on one shard: keys and arguments as merge.lua documents them."""

    script: Script
    keys: list[bytes]
    arguments: list[bytes]

    @property
    def size(self) -> int:
        """Bytes of the arguments."""
        return sum(map(len, self.arguments))


class Answer(NamedTuple):
    """What the script said: merged (with the tiles that were too old to be read), or refused and nothing changed."""

    merged: bool
    too_late: int


class Store:
    """One connection to Redis, or to each master of a Cluster; not to be shared between threads.

    Every method raises StoreUnavailable where Redis is down, loading, out of memory, read-only or failing over, and
    DeliveryError where it holds what can't be.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    def open(cls, settings: StreamSettings) -> Store:
        """A store of its own connection; nothing is sent yet. A failed command is never sent again by the client."""
        return cls(open_wire(settings))

    def close(self) -> None:
        """Closes the connection."""
        self._wire.close()

    def check_policy(self) -> None:
        """Raises ConfigError for a Redis that may evict rows: a row gone beside its checkpoint is a silent zero."""
        [memories] = self._ask(Command(["INFO", "memory"]))
        policy = next((p for p in map(_policy, memories) if p != "noeviction"), None)
        if policy is not None:
            raise ConfigError(
                "a Redis that holds features must never evict them",
                got=f"maxmemory-policy {policy}",
                hint="set it to noeviction: a full Redis then stops the worker, and nothing is lost",
            )

    def checkpoints(self, plan: ViewPlan) -> list[Checkpoint | None]:
        """The checkpoint of each shard, None where there is none."""
        keys = [checkpoint_redis_key(plan.storage_id, shard) for shard in range(plan.shards)]
        answers = self._ask(*(Command(["GET", key], key) for key in keys))
        try:
            return [None if data is None else Checkpoint.decode(data) for data in answers]
        except ValueError as error:
            raise DeliveryError(
                "a checkpoint in Redis is damaged",
                where=f"view {plan.name!r}",
                got=str(error),
                hint=f"run `headrace rebuild {plan.name}`",
            ) from None

    def run(self, calls: Sequence[Call]) -> list[Answer]:
        """Runs the calls in one pipeline, each atomic by itself; one that failed does not keep back the others."""
        answers = self._evaluate(calls)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
        if unknown:
            texts = {calls[n].script.sha: calls[n].script.text for n in unknown}
            self._ask(*(Command(["SCRIPT LOAD", text]) for text in texts.values()))
            again = self._evaluate([calls[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return [self._answer(call, answer) for call, answer in zip(calls, answers, strict=True)]

    def _evaluate(self, calls: Sequence[Call]) -> list[Any]:
        return self._execute(
            [
                Command(["EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments], call.keys[0])
                for call in calls
            ]
        )

    def _ask(self, *commands: Command) -> list[Any]:
        answers = self._execute(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise _unavailable(answer)
        return answers

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._wire.execute(commands)
        except (redis.exceptions.RedisError, OSError) as error:
            raise _unavailable(error) from error

    @staticmethod
    def _answer(call: Call, answer: object) -> Answer:
        if isinstance(answer, list):
            return Answer(answer[0] == 1, answer[1] if answer[0] == 1 else 0)
        if isinstance(answer, redis.exceptions.ResponseError) and DAMAGE in str(answer):
            raise DeliveryError(
                "the merge script refuses a call", where=call.keys[0].decode(), got=str(answer), hint="rebuild the view"
            )
        if isinstance(answer, Exception):
            raise _unavailable(answer)
        raise DeliveryError("the merge script answers {1, n} or {0, checkpoint}", got=repr(answer))


def _policy(memory: Mapping[str, Any]) -> str:
    return str(memory.get("maxmemory_policy", "noeviction"))


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        "Redis does not serve", got=f"{type(error).__name__}: {error}", hint="the worker waits and tries again"
    )
