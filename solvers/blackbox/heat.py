"""A solver that knows nothing of Penstock: it reads an input file and writes a file for every step.

    python heat.py heat.nml

The heat equation in the unit square, explicit Euler, second differences; the input file is a
Fortran namelist with n, steps, dt and the temperatures inside, left, right, bottom and top. It
stands for the program that you have and cannot change; deploy/campaigns/wrapped.toml runs it.
"""

import re
import sys
from pathlib import Path

import numpy as np


def namelist(text: str) -> dict[str, float]:
    """The numbers of `name = value` lines, with a Fortran exponent or a C one."""
    found = re.findall(r"^\s*(\w+)\s*=\s*([-+.\w]+)", text, re.MULTILINE)
    return {name: float(re.sub("[dD]", "e", value)) for name, value in found}


def main() -> None:
    given = namelist(Path(sys.argv[1]).read_text())
    n, steps, dt = int(given["n"]), int(given["steps"]), given["dt"]
    u = np.full((n, n), given["inside"])
    u[:, 0], u[:, -1], u[0], u[-1] = (given[s] for s in ("left", "right", "bottom", "top"))
    finer = int(np.ceil(4.0 * dt * (n - 1) ** 2))  # stable below h^2 / 4
    weight = dt / finer * (n - 1) ** 2
    for step in range(1, steps + 1):
        for _ in range(finer):
            neighbours = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
            u[1:-1, 1:-1] += weight * (neighbours - 4.0 * u[1:-1, 1:-1])
        np.save(f"temperature_{step:04d}.npy", u)
        print(f"step {step}: mean temperature {u.mean():.3f} K")


if __name__ == "__main__":
    main()
