"""Which shards a campaign has, how large they are, and its ports; pure, and imports no torch.

`wiring` tells the receivers so; `estimate` and `penstock check` add it up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.config import Campaign
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.tables import MOST_BUNCH_BYTES

LARGE_BYTES = 1 << 18  # of a step, or of several in one message
WAITING = 4  # large messages of all connections; with fewer of one, it and its receiver take turns
BUNCHES = 2  # of a connection, and of steps not larger than a bunch may be


@dataclass(frozen=True)
class ShardSize:
    """One slab of shared memory."""

    shard: str
    slots: int  # of a segment each
    rows: int  # simulations whose input fields are there at once
    n_bytes: int  # of all fields; the index beside them is small


def shard_names(c: Campaign) -> list[str]:
    """One shard a rank, and one for held-out simulations if there are any."""
    training = [str(rank) for rank in range(c.training.ranks)]
    return [*training, HELD_OUT] if c.design.held_out else training


def shard_sizes(c: Campaign) -> list[ShardSize]:
    """All slabs that are made when the campaign starts."""
    return [shard_size(c, shard) for shard in shard_names(c)]


def shard_size(c: Campaign, shard: str) -> ShardSize:
    """A training shard has its part of the capacity, the held-out one keeps every simulation."""
    if shard == HELD_OUT:
        simulations = c.design.held_out
        # One more a worker, for simulations that have to be repeated under a new id.
        slots = (simulations + c.solver.workers) * c.segments_per_simulation
    else:
        simulations = c.design.simulations
        samples = math.ceil(c.reservoir.capacity / c.training.ranks)
        slots = max(2, math.ceil(samples / c.samples_per_segment))
    rows = min(slots, simulations) + 2 * c.solver.workers + 1  # and those on their way
    segment_bytes = sum(f.sent_bytes for f in c.step_fields.values()) * c.stream.segment_steps
    row_bytes = sum(f.sent_bytes for f in c.input_fields.values())
    return ShardSize(shard, slots, rows, slots * segment_bytes + rows * row_bytes)


def most_waiting(c: Campaign) -> int:
    """Messages of one connection that ZeroMQ keeps for a receiver; 0: as many as come.

    What waits is written to memory and read again. With a few messages in all that is memory which
    the processor's caches still have; the others wait where they were sent from.
    """
    n_bytes = sum(f.sent_bytes for f in c.step_fields.values())
    if n_bytes < LARGE_BYTES:
        return BUNCHES if c.stream.bunch_bytes >= LARGE_BYTES else 0
    width = min(c.stream.shards_per_simulation, c.training.ranks)
    least = BUNCHES if n_bytes <= MOST_BUNCH_BYTES else 1
    return max(least, WAITING * c.training.ranks // (width * c.solver.workers))


def measured(shards: Sequence[str]) -> list[str]:
    """The processes that have a port for their metrics."""
    ranks = [f"rank-{shard}" for shard in shards if shard != HELD_OUT]
    receivers = [f"receiver-{shard}" for shard in shards]
    return ["coordinator", *receivers, *ranks, "validator", "keeper"]


def n_ports(shards: Sequence[str]) -> int:
    """One for the coordinator, one for the data of each shard, one for the metrics of a process."""
    return 1 + len(shards) + len(measured(shards))
