"""What an arm costs beside its error: core-hours, wall time from nothing, bytes stored; pure.

`result` calls it. The first run of a seed produced and stored all simulations; an arm is charged
for those that it needs: its training simulations and all validation simulations. The production of
test simulations is charged to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Simulations of a campaign by role."""

    train: int
    validation: int
    test: int

    def share(self, used: int) -> float:
        """Of all simulations, those that an arm with `used` training simulations needs."""
        return (used + self.validation) / (self.train + self.validation + self.test)


@dataclass(frozen=True)
class Costs:
    """From nothing: production and training together."""

    core_s: float
    wall_s: float
    stored_bytes: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def costs(
    arm_simulations: int | None,
    run: Mapping[str, Any],
    first: Mapping[str, Any],
    counts: Counts,
    workers: int,
) -> Costs:
    """Of one arm's run; run, first: summaries; arm_simulations None: the online arm.

    An offline arm waits for its data: the solvers' core-seconds spread evenly over `workers`
    cores, without any waiting for a trainer. The online run's wall time holds its test
    simulations too.
    """
    cpu = run["cpu_s"]
    if arm_simulations is None:
        share = counts.share(counts.train)
        without = float(cpu["all"]) - float(cpu["solvers"])
        return Costs(without + share * float(cpu["solvers"]), float(run["seconds"]), 0.0)
    production_s = counts.share(arm_simulations) * float(first["cpu_s"]["solvers"])
    return Costs(
        core_s=float(cpu["all"]) + production_s,
        wall_s=float(run["seconds"]) + production_s / workers,
        stored_bytes=counts.share(arm_simulations) * float(first["bytes"]["written_fields"]),
    )
