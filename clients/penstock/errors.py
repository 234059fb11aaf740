"""The errors that a solver can meet; all are subclasses of PenstockError."""

from __future__ import annotations


class PenstockError(Exception):
    """Base of everything that this client raises."""


class LayoutError(PenstockError):
    """A field was sent with a shape, dtype or layout other than the campaign's."""


class ConnectionLost(PenstockError):
    """A shard or the coordinator stayed silent beyond every deadline."""
