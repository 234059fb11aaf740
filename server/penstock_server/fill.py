"""`penstock fill FILE`: a worker that streams stored simulations as a solver would.

A campaign starts it as its solver: command = ["{server}", "-m", "penstock", "fill", "data.h5"].
Simulations are found by their parameters, so the campaign may ask for a part of them, in any order.
The one place of the server that uses the client's link.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import penstock
from penstock_server.dataset import DataSet, DataSetError

ROLES = ("train", "validation", "test")


def locate(path: Path) -> Path:
    """The data set that is meant: a file, or the run's folder that has one."""
    return path / "data.h5" if path.is_dir() else path


def fill(path: Path, pause_s: float = 0.0) -> int:
    """Streams what the campaign asks for; the number of simulations. Raises DataSetError.

    pause_s: slept before each step, to stream no faster than a solver would.
    """
    data = DataSet(locate(path))
    known = [role for role in ROLES if len(data.rows(role))]
    if not known:
        raise DataSetError(f"{data.path} has no complete simulation that could be streamed.")
    done = 0
    with penstock.connect(parameters=_first(data, known[0])) as link:
        for sim in link.simulations():
            found = find(data, sim.role, dict(sim.parameters))
            if found is None:
                sim.fail(f"{data.path} has no simulation with the parameters {sim.parameters}.")
                continue
            role, row = found
            group = data.roles[role]
            if group.inputs:
                sim.inputs(**{name: np.array(a[row]) for name, a in group.inputs.items()})
            for step in range(int(group.n_steps[row])):
                if pause_s:
                    time.sleep(pause_s)
                t = float(group.t[row, step])
                fields = {name: np.array(a[row, step]) for name, a in group.fields.items()}
                sim.send(None if np.isnan(t) else t, **fields)
                if sim.cancelled:
                    break
            done += 1
    return done


def find(data: DataSet, role: str, point: dict[str, float]) -> tuple[str, int] | None:
    """Where the simulation stands: under its own role first, else under any."""
    if set(point) != set(data.parameter_names):
        return None
    for each in (role, *(other for other in ROLES if other != role)):
        row = data.find(each, [point])[0]
        if row is not None:
            return each, row
    return None


def _first(data: DataSet, role: str) -> dict[str, float]:
    """The parameters of some simulation: what is streamed into nothing without a campaign."""
    values = data.roles[role].parameters[data.rows(role)[0]]
    return dict(zip(data.parameter_names, values.tolist(), strict=True))
