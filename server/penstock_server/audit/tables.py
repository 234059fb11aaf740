"""What the audit looks at, as values; `reading` makes them from a folder, tests by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_server.audit.places import Places
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.coordinator.records import COMPLETED
from penstock_server.draw_log import DRAW
from penstock_server.ledger import ADMITTED

Array = npt.NDArray[Any]

# The checksum of a stored segment's fields, computed by the audit from the data set.
STORED = np.dtype([("simulation", "<u8"), ("segment", "<u4"), ("checksum", "<u4")])


@dataclass(frozen=True)
class Simulation:
    """As the coordinator has it."""

    id: int
    role: str
    state: str
    steps: int | None  # as the client of the newest attempt counted them; None: it never said
    reason: str
    parameters: tuple[float, ...]
    predecessor: int | None = None


@dataclass(frozen=True)
class Training:
    """What the trainer said last."""

    done: bool
    why: str  # why it ended
    draws: int
    ordered: bool = False  # the coordinator told it to stop: stop.seconds, stop.target_error

    @property
    def budget(self) -> bool:
        """Whether a stop rule of the campaign ended it."""
        return self.done and (self.why == "batches" or (self.why == "stopped" and self.ordered))

    @property
    def drained(self) -> bool:
        return self.done and self.why == "drained"


@dataclass(frozen=True)
class Tables:
    """One run. Shards and ranks are apart: each counted by itself."""

    segment_steps: int
    window: int
    stride: int
    requested: int  # simulations of the campaign, repeats under a new id not counted
    simulations: tuple[Simulation, ...]
    training: Training
    admitted: Mapping[str, Array]  # shard -> rows of ledger.ADMITTED
    lines: Mapping[str, Array] | None  # shard -> rows of admission_journal.LINE; None: no journals
    draws: tuple[Array, ...] | None  # rank -> rows of draw_log.DRAW; None: no logs
    stored: Array | None = None  # rows of STORED; None: no data set, or no journals beside it
    input_fields: bool = False  # simulations differ by fields, too
    resumed: bool = False

    @property
    def span(self) -> int:
        """Steps from the first to the last of a sample."""
        return (self.window - 1) * self.stride + 1

    @cached_property
    def completed(self) -> list[Simulation]:
        return [each for each in self.simulations if each.state == COMPLETED]

    @cached_property
    def places(self) -> Places:
        """Of every simulation that anybody names."""
        parts = [np.array([each.id for each in self.simulations], np.uint64)]
        parts += [rows["simulation"] for rows in self.admitted.values()]
        parts += [rows["simulation"] for rows in (self.lines or {}).values()]
        parts += [rows["simulation"] for rows in self.draws or ()]
        return Places(np.unique(np.concatenate(parts)))

    @cached_property
    def training_admitted(self) -> Array:
        """What all training shards admitted."""
        found = [rows for shard, rows in self.admitted.items() if shard != HELD_OUT]
        return np.concatenate([np.empty(0, ADMITTED), *found])

    @cached_property
    def all_admitted(self) -> Array:
        return np.concatenate([np.empty(0, ADMITTED), *self.admitted.values()])

    @cached_property
    def all_draws(self) -> Array:
        """Of all ranks, one after the other; none where there are no logs."""
        return np.concatenate([np.empty(0, DRAW), *(self.draws or ())])
