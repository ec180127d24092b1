"""What crosses a process boundary: events, their types and decoding, rejections, the online row's bytes."""

from schemas.event import Event

__all__ = ["Event"]
