"""A small data set for tests: values that say which simulation, step and place they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from penstock_server.data_file import DataFile, DataLayout

SHAPE = (3, 2)


def layout(rows: dict[str, int], steps: int = 6, inputs: bool = False) -> DataLayout:
    described = {"dtype": "float32", "role": "state", "unit": "K", "components": 1}
    return DataLayout(
        campaign="small",
        run="run-1",
        toml="",
        parameters=["a", "b"],
        rows=rows,
        steps=steps,
        fields={"u": {"shape": list(SHAPE), **described}},
        inputs={"k": {"shape": [2], **described, "role": "input"}} if inputs else {},
    )


def value(simulation: int, step: int) -> npt.NDArray[np.float32]:
    """(3, 2)."""
    return (100 * simulation + step + np.arange(6) / 10).astype(np.float32).reshape(SHAPE)


def point(simulation: int) -> dict[str, float]:
    return {"a": simulation / 7, "b": -1.0 * simulation}


def put(
    file: DataFile, role: str, simulation: int, first: int, n: int, inputs: bool = False
) -> None:
    """Steps first .. first + n - 1 of a simulation."""
    at = file.row(role, simulation, np.array(list(point(simulation).values())))
    assert at is not None
    steps = range(first, first + n)
    fields = {"u": np.stack([value(simulation, step) for step in steps])}
    given = {"k": np.full(2, simulation, np.float32)} if inputs else {}
    file.put(role, at, first, np.array([0.1 * (step + 1) for step in steps]), fields, given)


def write(path: Path, simulations: dict[str, list[int]], steps: int = 6) -> None:
    """A data set of complete simulations, role -> ids."""
    file = DataFile(path, layout({role: len(ids) + 2 for role, ids in simulations.items()}, steps))
    for role, ids in simulations.items():
        for simulation in ids:
            put(file, role, simulation, 0, steps)
            file.end(role, simulation, steps)
    file.close()
