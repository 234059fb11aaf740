"""Whether an MPI heat solver sends what penstock_solvers.heat_numpy computes, node by node.

`python tests/conformance/heat.py -- ./heat_mpi` runs it on 1, 2 and 3 ranks against the kit's
server and prints the largest relative difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import cache

import numpy as np
from contract import Array, Contract
from scenarios import CAMPAIGN, Scenario
from stage import play

from penstock_server.interpreters import find_starter
from penstock_solvers.heat_numpy import HeatNumpy, solve

N, STEPS = 24, 20
LIMIT = 1e-8
CASES = (
    {"T0": 120.0, "T1": 480.5, "T2": 150.25, "T3": 333.0, "T4": 499.0},
    {"T4": 100.0, "T2": 310.0, "T3": 200.0, "T1": 450.0, "T0": 500.0},
)


class Heat(Contract):
    """The heat problem's fields after each of STEPS steps; keeps the largest difference."""

    shapes = {"temperature": (N, N)}
    inputs: frozenset[str] = frozenset()
    relative_error = LIMIT

    def __init__(self) -> None:
        self.largest = 0.0

    def calls(self, given: Mapping[str, float]) -> int:
        return STEPS

    def time_of(self, call: int, given: Mapping[str, float]) -> float:
        return (call + 1) * 0.01

    def field(self, name: str, call: int, seed: int, given: Mapping[str, float]) -> Array:
        return trajectory(tuple(sorted(given.items())))[call]

    def agrees(self, found: Array, expected: Array) -> bool:
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        self.largest = max(self.largest, difference)
        return difference <= LIMIT


@cache
def trajectory(given: tuple[tuple[str, float], ...]) -> list[Array]:
    return [u for _, u in solve(dict(given), HeatNumpy(N), STEPS)]


def scenario(contract: Heat) -> Scenario:
    assignments = [
        {
            "simulation": i, "lease": i + 1, "role": "train", "attempt": 1, "seed": i,
            "wanted": None, "parameters": case,
        }
        for i, case in enumerate(CASES)
    ]  # fmt: skip
    spec = {"shape": [N, N], "dtype": "float64", "role": "state", "every": 1}
    return Scenario(
        "heat", "the fields are those of heat_numpy", assignments, {"temperature": spec},
        stream={"segment_steps": 5}, shards=2, contract=contract, campaign=CAMPAIGN,
        arguments=("--n", str(N), "--steps", str(STEPS)),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("command", nargs="+", help="the solver, after --")
    options = parser.parse_args()
    starter, failures = find_starter(), 0
    for n_parts in options.ranks:
        contract = Heat()
        prefix = starter.argv(n_parts) if starter is not None and n_parts > 1 else []
        problems = play(scenario(contract), options.command, n_parts, prefix)
        failures += bool(problems)
        mark, name = "FAIL" if problems else "ok", options.command[0]
        difference = f"largest difference to heat_numpy {contract.largest:.1e}"
        print(f"{mark:4} {name}, {n_parts} rank(s): {difference}, allowed {LIMIT:g}", flush=True)
        for problem in problems:
            print(f"       {problem}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
