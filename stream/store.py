"""Redis as a worker uses it: checkpoints read, script calls pipelined, failures told apart by what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.plan import ViewPlan
from schemas.errors import ConfigError, DeliveryError, NotReady
from schemas.row import Checkpoint, checkpoint_redis_key
from stream.script import Script
from stream.settings import StreamSettings

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
    """One connection to Redis; not to be shared between threads.

    Every method raises StoreUnavailable where Redis is down, loading, out of memory, read-only or failing over, and
    DeliveryError where it holds what can't be.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    @classmethod
    def open(cls, settings: StreamSettings) -> Store:
        """A store of its own connection; nothing is sent yet. A failed command is never sent again by the client."""
        client = redis.Redis.from_url(
            settings.redis_address(),
            socket_timeout=settings.redis_timeout_s,
            socket_connect_timeout=settings.redis_timeout_s,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
        )
        return cls(client)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def check_policy(self) -> None:
        """Raises ConfigError for a Redis that may evict rows: a row gone beside its checkpoint is a silent zero."""
        policy = str(self._ask(["INFO", "memory"])[0].get("maxmemory_policy", "noeviction"))
        if policy != "noeviction":
            raise ConfigError(
                "a Redis that holds features must never evict them",
                got=f"maxmemory-policy {policy}",
                hint="set it to noeviction: a full Redis then stops the worker, and nothing is lost",
            )

    def checkpoints(self, plan: ViewPlan) -> list[Checkpoint | None]:
        """The checkpoint of each shard, None where there is none."""
        answers = self._ask(*(["GET", checkpoint_redis_key(plan.storage_id, shard)] for shard in range(plan.shards)))
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
            self._ask(*(["SCRIPT LOAD", text] for text in texts.values()))
            again = self._evaluate([calls[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return [self._answer(call, answer) for call, answer in zip(calls, answers, strict=True)]

    def _evaluate(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            _add(pipeline, "EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments)
        return self._execute(pipeline)

    def _ask(self, *commands: Sequence[object]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            _add(pipeline, *command)
        answers = self._execute(pipeline)
        for answer in answers:
            if isinstance(answer, Exception):
                raise _unavailable(answer)
        return answers

    @staticmethod
    def _execute(pipeline: redis.client.Pipeline) -> list[Any]:
        try:
            return list(pipeline.execute(raise_on_error=False))
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


def _add(pipeline: redis.client.Pipeline, *command: object) -> None:
    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        "Redis does not serve", got=f"{type(error).__name__}: {error}", hint="the worker waits and tries again"
    )
