"""Events in JSON: an object whose keys are the fields."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.event import Event
from schemas.formats.fast import fast_path
from schemas.formats.read import Read, read_events


class JsonReader:
    """Where a key stands twice, its last value counts."""

    def __init__(self, event: type[Event]) -> None:
        self._time = event.spec().time
        self._explain = event.model_validate_json
        self._fast = fast_path(event)
        self._decode = None if self._fast is None else msgspec.json.Decoder(self._fast.struct).decode

    def read(self, values: Sequence[bytes]) -> Read:
        """See `Reader`."""
        return read_events(values, self._fast, self._decode, self._explain, self._time)
