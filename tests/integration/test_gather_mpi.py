"""Rank 0 sends for all: MPI programs into a real receiver, and against the server of `try`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
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

from penstock_server.interpreters import find_interpreter, find_starter, solver_environment
from penstock_server.slab import COMMITTED, Slab
from penstock_server.try_desk import Work
from penstock_server.try_findings import findings
from penstock_server.try_report import report
from penstock_server.try_solver import inputs, program, run

pytestmark = [pytest.mark.solvers, pytest.mark.timeout(120)]

SHAPE, STEPS = (8, 6), 5
BEGIN = """
import sys, numpy as np, penstock
from mpi4py import MPI
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
assert size == int(sys.argv[1]), "mpirun is of another MPI than mpi4py"
rows = slice(8 * rank // size, 8 * (rank + 1) // size)
columns = slice(6 * rank // size, 6 * (rank + 1) // size)
def field(simulation, step):
    return (1000 * simulation + step + np.arange(48) / 64).reshape(8, 6)
link = penstock.connect(comm, gather="root")
"""
PARTITIONS = """
owned = [
    (rows, slice(None)),
    (slice(None), columns),
    np.array_split(np.random.default_rng(4).permutation(48), size)[rank],
    (slice(0, 8 if rank == size - 1 else 0), slice(None)),  # the last one has all
]
with link:
    for sim in link.simulations():
        mine = owned[sim.id]
        link.layout("u", global_shape=(8, 6), owned=mine)
        for step in range(5):
            u = field(sim.id, step)
            sim.send(0.1 * step, u=u.reshape(-1)[mine] if sim.id == 2 else u[mine])
            if sim.cancelled:
                break
"""
GIVES_UP = """
with link:
    link.layout("u", global_shape=(8, 6), owned=(slice(None), columns))
    for sim in link.simulations():
        with sim:
            for step in range(5):
                if (sim.id, rank, step) == (0, 1, 3):
                    raise ArithmeticError("a negative depth")
                if sim.cancelled:
                    break
                sim.send(0.1 * step, u=field(sim.id, step)[:, columns])
"""
RAISES = """
with link:
    link.layout("u", global_shape=(8, 6), owned=(rows, slice(None)))
    for sim in link.simulations():
        for step in range(10**9):
            if (rank, step) == (1, 3):
                raise ArithmeticError("a negative depth")
            comm.Barrier()
            sim.send(0.1 * step, u=field(sim.id, step)[rows])
"""
LEARNED = """
with link:
    link.layout("u", global_shape=(8, 6), owned=(rows, slice(None)))
    link.layout("k", global_shape=(8,), owned=np.arange(8)[rows])
    for sim in link.simulations():
        sim.inputs(k=np.arange(8.0)[rows])
        for step in range(3):
            sim.send(0.1 * step, u=field(sim.id, step)[rows])
"""


def command(folder: Path, text: str, ranks: int) -> list[str]:
    interpreter = find_interpreter()
    starter = find_starter(interpreter)
    assert starter is not None
    (folder / "solver.py").write_text(BEGIN + text)
    return [*starter.argv(ranks), interpreter.path, str(folder / "solver.py"), str(ranks)]


class Stage:
    """A coordinator, a receiver, and programs that are started on so many ranks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.coordinator = ScriptedCoordinator({}, [])
        self.coordinator.start()
        self.receiver = ReceiverProcess(folder, self.coordinator.address, policy="fifo")
        self.coordinator.welcome = welcome([self.receiver])
        wait_for(lambda: "0" in self.coordinator.reports, what="the receiver")

    def run(self, text: str, ranks: int, simulations: int) -> subprocess.CompletedProcess[str]:
        self.coordinator.assignments = [assignment(s, ["0"]) for s in range(simulations)]
        return subprocess.run(
            command(self._folder, text, ranks),
            env={**client_environment(self.coordinator.address, "w0"), **solver_environment()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def delivered(self, *simulations: int) -> None:
        wait_for(lambda: self.coordinator.delivered == set(simulations), what="the delivery")

    def close(self) -> None:
        self.receiver.stop()
        self.coordinator.stop()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_partition_arrives_from_one_part(stage: Stage, ranks: int) -> None:
    """Rows, columns, scattered values and all on one rank: a simulation each, with its layout."""
    done = stage.run(PARTITIONS, ranks, simulations=4)
    assert done.returncode == 0, done.stderr
    stage.delivered(0, 1, 2, 3)
    (hello,) = [r for r in stage.coordinator.requests if r["kind"] == "hello"]
    assert (hello["parts"], hello.get("ranks", 1)) == (1, ranks)
    slab = Slab.attach(Path(stage.receiver.settings.folder))
    found = {}
    for slot in np.flatnonzero(slab.descriptor["state"] == COMMITTED):
        row = slab.descriptor[slot]
        assert row["n_parts"] == 1
        found[int(row["simulation"]), int(row["segment"])] = slab.fields["u"][slot, 0]
    assert sorted(found) == [(s, k) for s in range(4) for k in range(STEPS)]
    for (simulation, step), field in found.items():
        expected = (1000 * simulation + step + np.arange(48) / 64).reshape(SHAPE)
        np.testing.assert_array_equal(field, expected.astype("f4"))


def test_what_another_rank_gives_up_fails_alone(stage: Stage) -> None:
    done = stage.run(GIVES_UP, 3, simulations=2)
    assert done.returncode == 0, done.stderr
    stage.delivered(1)
    told = [p for r in stage.coordinator.requests if (p := r.get("previous"))]
    assert [(p["outcome"], p["reason"]) for p in told] == [
        ("failed", "ArithmeticError: a negative depth"),
        ("ended", ""),
    ]


def test_an_exception_on_another_rank_ends_all_of_them_and_is_told(stage: Stage) -> None:
    began_s = time.monotonic()
    done = stage.run(RAISES, 3, simulations=1)
    assert done.returncode != 0
    assert time.monotonic() - began_s < 40
    assert "ArithmeticError: a negative depth" in done.stderr
    (fail,) = [r for r in stage.coordinator.requests if r["kind"] == "fail"]
    assert fail["reason"] == "ArithmeticError: a negative depth"


def test_ranks_without_a_campaign_learn_their_fields_together(tmp_path: Path) -> None:
    argv, environment = program(command(tmp_path, LEARNED, 2), None)
    work = Work(tuple(inputs((), None, 2)))
    found = run(argv, argv, environment, work, None, 60.0, tmp_path / "log")
    assert findings(found, None) == []
    text = "\n".join(report(found, findings(found, None), None))
    assert "k: 8, float64, 64 B, input, once a simulation; values from 0 to 7" in text
    assert "u: 8 x 6, float64, 384 B, every step; values from 0 to 1003" in text
    assert "every value comes from one rank" in text
    assert "  2 MPI rank(s); first simulation" in text
    assert "mpi_ranks = 2" in text
