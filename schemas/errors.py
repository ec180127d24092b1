"""The exceptions of headrace.

HeadraceError
├── DefinitionError      a declaration that can't mean anything: found when it is written
│   └── ChangedMeaning   a registered name whose meaning would change silently
├── RequestError         a request that can't be answered as it was put (HTTP 422)
│   ├── NotFound         it names something that isn't there (HTTP 404)
│   └── TooLarge         it is larger than the server takes (HTTP 413)
├── DataError            rows, files or a log that aren't what they must be
├── ConfigError          a setting or an environment that can't work
├── NotReady             a true answer isn't there yet (HTTP 503)
│   └── Overloaded       there is more to do at once than there is room for (HTTP 503, 429 for writes)
└── DeliveryError        progress here would break the delivery guarantee: refused loudly
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The fact; what was got; the next step. `where` names the place: a file, a view, a feature, a topic."""

    def __init__(self, fact: str, *, where: str = "", got: str = "", hint: str = "") -> None:
        self.fact = fact
        self.where = where
        self.got = got
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.fact}" if self.where else self.fact
        if self.got:
            text += f"; got {self.got}"
        return f"{text}; {self.hint}" if self.hint else text

    def at(self, where: str) -> HeadraceError:
        """The same error, its place named more widely: `where` is put in front."""
        place = f"{where}: {self.where}" if self.where else where
        return type(self)(self.fact, where=place, got=self.got, hint=self.hint)


class DefinitionError(HeadraceError):
    """A declaration that can't mean anything."""


class ChangedMeaning(DefinitionError):
    """A registered name whose meaning would change silently."""


class RequestError(HeadraceError):
    """A request that can't be answered as it was put."""


class NotFound(RequestError):
    """A request names something that isn't there."""


class TooLarge(RequestError):
    """A request is larger than the server takes."""


class DataError(HeadraceError):
    """Rows, files or a log that aren't what they must be."""


class ConfigError(HeadraceError):
    """A setting or an environment that can't work."""


class NotReady(HeadraceError):
    """A true answer isn't there yet; asking again later may get one."""


class Overloaded(NotReady):
    """There is more to do at once than there is room for."""


class DeliveryError(HeadraceError):
    """Going on would skip or double events."""
