"""Redis's protocol, as far as reads need it: commands as bytes, replies through hiredis.

A client of its own, because a read is one write and one parse: redis-py spends more time on packing a MGET of hundreds
of keys than Redis does on answering it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ssl import SSLContext, create_default_context
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigError, DataError, NotReady

Reply: TypeAlias = Any
"""What hiredis makes of a reply: bytes, int, None, a list of replies, or hiredis.ReplyError."""

PORT = 6379
PASSING = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "MOVED", "ASK")
"""Error replies that say 'not now': asking again later may get an answer."""


@dataclass(frozen=True)
class Address:
    """Where a Redis is and how one gets in."""

    host: str
    port: int
    path: str | None
    username: str | None
    password: str | None
    database: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """The address in a redis://, rediss:// or unix:// URL. Raises ConfigError, without the URL's secrets."""
        parts = urlsplit(url)
        database = parts.path.strip("/") if parts.scheme != "unix" else ""
        if parts.scheme not in ("redis", "rediss", "unix") or not (database == "" or database.isdigit()):
            raise ConfigError(
                "a Redis address is redis://, rediss:// or unix://",
                got=f"{parts.scheme}://{parts.hostname or ''}{parts.path}",
                hint="set HEADRACE_REDIS_URL, as in redis://127.0.0.1:6379/0",
            )
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or PORT,
            path=parts.path if parts.scheme == "unix" else None,
            username=None if not parts.username else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            database=int(database or 0),
            tls=parts.scheme == "rediss",
        )

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def ssl_context(self) -> SSLContext | None:
        """The TLS settings of a rediss:// address: the system's certificates, the host name checked."""
        return create_default_context() if self.tls else None

    def greeting(self) -> list[bytes]:
        """The commands that open a connection."""
        commands = []
        if self.password is not None:
            who = ["AUTH", self.password] if self.username is None else ["AUTH", self.username, self.password]
            commands.append(command(*(part.encode() for part in who)))
        if self.database:
            commands.append(command(b"SELECT", b"%d" % self.database))
        return commands


def bulk(argument: bytes) -> bytes:
    """One argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def command(*arguments: bytes) -> bytes:
    """A command."""
    return command_of_bulks([bulk(argument) for argument in arguments])


def command_of_bulks(bulks: Sequence[bytes]) -> bytes:
    """A command of arguments that `bulk` has encoded."""
    return b"*%d\r\n%b" % (len(bulks), b"".join(bulks))


def mget(keys: Sequence[bytes], count: int) -> bytes:
    """A MGET of `count` keys that `bulk` has encoded, one or several in each text."""
    return b"*%d\r\n$4\r\nMGET\r\n%b" % (count + 1, b"".join(keys))


MULTI = command(b"MULTI")
EXEC = command(b"EXEC")
PING = command(b"PING")


def checked(replies: Iterable[Reply], address: Address) -> list[Reply]:
    """The replies. Raises NotReady for an error that passes, DataError for any other."""
    checked_replies = list(replies)
    for reply in checked_replies:
        if isinstance(reply, Exception):
            raise error_of(reply, address)
    return checked_replies


def error_of(reply: Exception, address: Address) -> NotReady | DataError:
    """An error reply as an exception of headrace."""
    text = str(reply)
    if text.startswith(PASSING):
        return NotReady("Redis can't answer now", where=str(address), got=text, hint="ask again in a second")
    return DataError("Redis refused a read", where=str(address), got=text, hint="see Redis's own log")


def unreachable(address: Address, cause: BaseException) -> NotReady:
    """A connection that failed or stayed silent, as an exception of headrace."""
    got = str(cause) or type(cause).__name__
    return NotReady("Redis does not answer", where=str(address), got=got, hint="ask again in a second; is it running?")
