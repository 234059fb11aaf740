"""A simulation arrives the same however many MPI ranks computed and sent it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from scripted import (
    ReceiverProcess,
    ScriptedCoordinator,
    assignment,
    client_environment,
    wait_for,
    welcome,
)

from penstock_server.config import parse
from penstock_server.interpreters import solver_command
from penstock_server.slab import COMMITTED, Slab

pytestmark = [pytest.mark.solvers, pytest.mark.timeout(120)]

N, STEPS = 17, 6
PARAMETERS = {"T0": 150.0, "T1": 400.0, "T2": 210.0, "T3": 480.0, "T4": 120.0}
CAMPAIGN = """
name = "arrival"
[solver]
command = ["{{python}}", "-m", "penstock_solvers.heat", "--n", "{n}", "--steps", "{steps}"]
mpi_ranks = {ranks}
steps = {steps}
[design]
simulations = 1
[design.parameters]
T0 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{n}, {n}]
dtype = "float64"
"""


def arrived(folder: Path, ranks: int) -> np.ndarray:
    """(steps, n, n): what stands in the slab after one simulation on so many ranks."""
    folder.mkdir()
    coordinator = ScriptedCoordinator({}, [])
    coordinator.start()
    receiver = ReceiverProcess(
        folder,
        coordinator.address,
        fields={"temperature": {"shape": [N, N], "dtype": "float64"}},
        order=["temperature"],
        parameters=list(PARAMETERS),
        policy="fifo",
    )
    try:
        coordinator.assignments = [assignment(0, ["0"], parameters=PARAMETERS)]
        coordinator.welcome = welcome([receiver])
        wait_for(lambda: "0" in coordinator.reports, what="the receiver")
        command = solver_command(parse(CAMPAIGN.format(n=N, steps=STEPS, ranks=ranks)))
        environment = {**client_environment(coordinator.address, "w0"), **command.env}
        done = subprocess.run(
            command.argv, env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        wait_for(lambda: coordinator.delivered == {0}, what="the delivery")
        slab = Slab.attach(Path(receiver.settings.folder))
        slots = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
        slots = slots[np.argsort(slab.descriptor["segment"][slots])]
        return slab.fields["temperature"][slots, 0].copy()
    finally:
        receiver.stop()
        coordinator.stop()


def test_one_two_and_four_ranks_send_the_same_simulation(tmp_path: Path) -> None:
    fields = {ranks: arrived(tmp_path / str(ranks), ranks) for ranks in (1, 2, 4)}
    assert fields[1].shape == (STEPS, N, N)
    for ranks in (2, 4):
        error = np.abs(fields[ranks] - fields[1]).max() / np.abs(fields[1]).max()
        assert error < 1e-10
    assert np.ptp(fields[1][-1]) > 100  # something happened in there
