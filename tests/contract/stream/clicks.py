"""Events of a made-up site: many users, late ones, words and nulls, and bytes that are no events."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

BAD = (
    b"",
    b"not json",
    b"{}",
    b'{"at": "soon", "user": "u1", "id": "x", "amount": 1.0, "word": null}',
    b'{"at": 1700000000, "user": 7, "id": "x", "amount": 1.0, "word": null}',
    b'{"at": 1700000000, "user": "u1", "id": "x", "amount": NaN, "word": null}',
    b'{"at": 4000000000, "user": "u1", "id": "x", "amount": 1.0, "word": null}',
    b"\xff\xfe\x00\x01",
)


def clicks(count: int, *, seed: int = 0, users: int = 300, bad_every: int = 0) -> Iterator[dict[str, object] | bytes]:
    chance = random.Random(seed)
    now = time.time()
    for number in range(count):
        if bad_every and number % bad_every == bad_every - 1:
            yield BAD[number // bad_every % len(BAD)]
            continue
        late = chance.choice((1, 60, 3_600, 86_400))
        yield {
            "at": round(now - chance.random() * late, 6),
            "user": f"u{int(chance.paretovariate(0.7)) % users}",
            "id": f"{seed}-{number}",
            "amount": None if chance.random() < 0.1 else round(chance.gauss(0, 1e3), 3),
            "word": None if chance.random() < 0.2 else chance.choice(("ä", "bee", "sea", "")),
        }
