"""The errors that a solver can meet; all are subclasses of PenstockError."""

from __future__ import annotations


class PenstockError(Exception):
    """Base of everything that this client raises."""


class LayoutError(PenstockError):
    """A field was sent with a shape, dtype or layout other than the campaign's."""


class ConnectionLost(PenstockError):
    """A shard or the coordinator stayed silent beyond every deadline."""


class KeyFileError(PenstockError):
    """The file that PENSTOCK_KEYS names cannot be used; the text says why, without a key."""


class KeyRefused(ConnectionLost):
    """The server does not accept this program's key, or wants one that it has not got."""
