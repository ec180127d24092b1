"""What is known of enriched events wherever they are written, landed or read: DESIGN §3, `Enriched`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

ONLINE = "online"
"""The columns are what the online store answered for the event's own instant."""
LATE = "late"
"""The store knew events at or after that instant already, so it could not answer for it: the columns are null."""
OFFLINE = "offline"
"""Recomputed from the event log: the event is older than the first deployment."""
ANSWERS = (ONLINE, LATE, OFFLINE)


class Deployment(msgspec.Struct, frozen=True):
    """From where on the events of a topic are enriched as they come: what lies before is recomputed offline.

    `starts`: for each partition of `topic` the first offset; `known`: how far the topics of the view had come by then.
    """

    topic: str
    starts: Mapping[int, int]
    known: Mapping[str, Mapping[int, int]]

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Deployment:
        """Raises msgspec.DecodeError where it is none."""
        return msgspec.json.decode(data, type=cls)


def deployments_topic(project: str) -> str:
    """The compacted topic that holds each enriched topic's Deployment, under the topic's name."""
    return f"{project}.enriched"


def answer_column(view: str) -> str:
    """The column that says how the columns of the view came about."""
    return f"{view}_answer"
