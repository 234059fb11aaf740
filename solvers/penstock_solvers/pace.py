"""How long a numpy solver rests in each step: production at a chosen pace, for trials.

Called by the main() of the numpy heat solvers. Each step sleeps pause x spread^f seconds, where f
is the fraction of its range at which the simulation's first temperature T0 lies: with spread 10
the simulations at one end of the box take ten times as long as those at the other, as happens with
solvers whose cost depends on the input.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_solvers.command import Box

FIRST = "T0"


@dataclass(frozen=True)
class Pace:
    """pause_s at the low end of T0's range, pause_s x spread at the high end."""

    pause_s: float
    spread: float
    low: float
    high: float

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """--pause and --spread."""
        group = parser.add_argument_group("pace, for trials")
        group.add_argument(
            "--pause",
            type=float,
            default=0.0,
            metavar="MS",
            help="milliseconds to rest in each step; default 0",
        )
        group.add_argument(
            "--spread",
            type=float,
            default=1.0,
            metavar="FACTOR",
            help="rest FACTOR times as long where T0 is highest; default 1",
        )

    @classmethod
    def of(cls, options: argparse.Namespace, box: Box) -> Pace:
        """From the command line. Raises ValueError for a negative pause or spread."""
        if options.pause < 0 or options.spread <= 0:
            raise ValueError(
                f"--pause must not be negative and --spread must be positive, got "
                f"{options.pause} and {options.spread}."
            )
        return cls(options.pause / 1000, options.spread, *box[FIRST])

    def seconds(self, parameters: Mapping[str, float]) -> float:
        """How long a simulation rests in each step."""
        fraction = (float(parameters[FIRST]) - self.low) / (self.high - self.low)
        return self.pause_s * float(self.spread**fraction)

    def rest(self, parameters: Mapping[str, float]) -> None:
        """Called once a step."""
        if self.pause_s:
            time.sleep(self.seconds(parameters))
