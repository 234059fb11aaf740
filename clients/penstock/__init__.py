"""Penstock's light client: streams the steps of a solver into a training campaign."""

from penstock.errors import (
    ConnectionLost,
    KeyFileError,
    KeyRefused,
    LayoutError,
    PenstockError,
)
from penstock.link import Link, connect
from penstock.simulation import Simulation

__all__ = [
    "ConnectionLost",
    "KeyFileError",
    "KeyRefused",
    "LayoutError",
    "Link",
    "PenstockError",
    "Simulation",
    "connect",
]
__version__ = "0.1.0"
