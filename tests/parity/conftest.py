"""What the parity tests share: one kernel, one Redis, and the count of what was generated and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from features.kernel import Kernel

CASES: Counter[str] = Counter()


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture(scope="session")
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture(scope="session")
def cases() -> Counter[str]:
    return CASES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CASES:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(CASES.items()))
        terminalreporter.write_line(f"parity: {counts}")
