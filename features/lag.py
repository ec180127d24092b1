"""Lag: a feature of the same view, as it was some time ago."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any

from features.aggregation import Aggregation
from features.errors import DefinitionError
from features.window import Calendar, Lagged, Window, default_hop_us
from schemas.duration import parse_duration


class Lag:
    """`Lag("f", "24h")`: the feature `f` of the same view with its window ending that much earlier.

    Of a lifetime: all events before the hop that holds `q − lag`, the hop being that of a window of the lag's length.
    Raises DefinitionError for a calendar, a latest value or another Lag.
    """

    def __init__(self, feature: str, lag: str) -> None:
        if not isinstance(feature, str):
            raise DefinitionError("Lag names a feature of its view", got=repr(feature), hint='write Lag("f", "24h")')
        try:
            self.lag_us = parse_duration(lag)
        except (TypeError, ValueError) as error:
            raise DefinitionError("a lag is a duration", got=repr(lag), hint=f'write "24h" ({error})') from None
        if self.lag_us <= 0:
            raise DefinitionError("a lag is longer than nothing", got=repr(lag), hint='write "24h"')
        self.feature = feature
        self.lag = lag

    def __repr__(self) -> str:
        return f"Lag({self.feature!r}, {self.lag!r})"

    def of(self, aggregation: Aggregation) -> Aggregation:
        """The aggregation over its window, ending that much earlier."""
        over = aggregation.over
        if isinstance(over, Calendar):
            raise DefinitionError(
                "a calendar can't be lagged",
                got=f"{self!r} of {aggregation!r}",
                hint=f"write Calendar({over.unit!r}, tz={over.tz!r}, ago={over.ago + 1})",
            )
        lagged = copy.copy(aggregation)
        if isinstance(over, Window):
            lagged.over = over.lagged(self.lag_us)
        else:
            lagged.over = Lagged(0, default_hop_us(self.lag_us), self.lag_us, self.lag_us)
        return lagged


def resolve_lags(features: Mapping[str, Any]) -> dict[str, Aggregation]:
    """The features of a view, each Lag in place of what it means."""
    resolved = {}
    for name, each in features.items():
        try:
            resolved[name] = _resolved(each, features) if isinstance(each, Lag) else each
        except DefinitionError as error:
            raise error.at(f"feature {name!r}") from None
    return resolved


def _resolved(lag: Lag, features: Mapping[str, Any]) -> Aggregation:
    target = features.get(lag.feature)
    if isinstance(target, Aggregation):
        return lag.of(target)
    if isinstance(target, Lag):
        raise DefinitionError(
            "a Lag can't be lagged", got=f"{lag!r} of {target!r}", hint="lag the feature itself, by the sum of both"
        )
    close = difflib.get_close_matches(lag.feature, list(features), n=1, cutoff=0.5)
    raise DefinitionError(
        "Lag names a feature of its view",
        got=repr(lag.feature),
        hint=f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(features)}",
    )
