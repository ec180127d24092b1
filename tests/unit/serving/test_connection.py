"""A connection to Redis ends when Redis is silent, and only then."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from schemas.errors import NotReady
from serving.connection import AsyncRedis
from serving.resp import PING, Address


def test_what_came_while_the_process_was_busy_is_read_before_anyone_is_given_up(redis_url: str) -> None:
    async def run() -> list[object]:
        redis = AsyncRedis(Address.of(redis_url), timeout_s=0.1)
        await redis.ask(PING, 1)
        asked = asyncio.create_task(redis.ask(PING, 1))
        await asyncio.sleep(0)
        time.sleep(0.3)
        answer = await asked
        await redis.close()
        return answer

    assert len(uvloop.run(run())) == 1


def test_a_question_waits_its_turn_while_others_are_answered_and_silence_ends_them_all() -> None:
    """A server that answers every 60 ms, and after five answers no more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(5):
            await asyncio.sleep(0.06)
            writer.write(b"+PONG\r\n")
        await reader.read(-1)
        writer.close()

    async def run() -> tuple[list[bool], float]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        redis = AsyncRedis(Address.of(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"), timeout_s=0.1)
        started = time.monotonic()
        asked = [asyncio.create_task(redis.ask(PING, 1)) for _ in range(7)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        took = time.monotonic() - started
        assert all(isinstance(each, NotReady) and "silent for 0.1 s" in str(each) for each in answers[5:])
        server.close()
        return [isinstance(each, list) for each in answers], took

    answered, took = uvloop.run(run())
    assert answered == [True] * 5 + [False] * 2
    assert took == pytest.approx(0.3 + 0.1 + 0.1, abs=0.2)
