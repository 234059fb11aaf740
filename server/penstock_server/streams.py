"""One simulation on its way into one shard: what has come and what may come; owned by the shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from penstock_server.parts import PartPlaces
from penstock_server.plans import Plan


@dataclass(slots=True)
class OpenSlot:
    """A segment that is being received: which parts of which steps stand in the slot."""

    slot: int
    bits: list[int]  # one integer of part bits a step
    received: int = 0

    def has(self, step: int, part: int) -> bool:
        return bool(self.bits[step] >> part & 1)

    def add(self, step: int, part: int) -> None:
        self.bits[step] |= 1 << part
        self.received += 1


@dataclass
class Stream:
    """The lease of a simulation at this shard.

    Segments s with s % stride == position belong here; the k-th of them has the ordinal k.
    `granted` ordinals may be sent, `reserved` of these have a slot kept for them.
    """

    simulation: int
    lease: int
    n_parts: int
    position: int
    stride: int
    values: npt.NDArray[Any]  # of the parameters
    role: int = 0
    granted: int = 0
    reserved: int = 0
    steps_seen: int = 0
    n_steps: int | None = None
    row: int | None = None
    inputs_received: int = 0  # bits by part
    ended: int = 0  # bits by part
    refused: str | None = None
    covered: int = 0  # check number of the layouts of all parts, once they are whole
    open: dict[int, OpenSlot] = field(default_factory=dict)
    reserved_ordinals: set[int] = field(default_factory=set)
    peers: set[bytes] = field(default_factory=set)
    plans: dict[int, Plan] = field(default_factory=dict)  # by part
    plan_numbers: dict[int, set[int]] = field(default_factory=dict)  # of it, as OPENs named it
    places: dict[int, PartPlaces] = field(default_factory=dict)  # by part, from its first step on

    @property
    def all_parts(self) -> int:
        return (1 << self.n_parts) - 1

    @property
    def live(self) -> bool:
        """Whether more may come."""
        return self.refused is None and self.ended != self.all_parts

    def has_inputs(self, part: int) -> bool:
        """Whether the input fields of the part have come."""
        return bool(self.inputs_received >> part & 1)

    def segment(self, ordinal: int) -> int:
        return ordinal * self.stride + self.position

    def n_segments(self, n_steps: int, segment_steps: int) -> int:
        """How many segments of a simulation of n_steps belong to this shard."""
        total = -(-n_steps // segment_steps)
        return max(0, -(-(total - self.position) // self.stride))
