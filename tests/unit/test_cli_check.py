"""`penstock check`: costs, refusals with their arithmetic, and what would be started; pure."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest
from campaigns import small

from penstock_server import check_report
from penstock_server.check_report import Machine, refusals, report, shared_refusal, useful_workers
from penstock_server.interpreters import Command
from penstock_server.sizes import shard_sizes

GB = 1_000_000_000
MACHINE = Machine(
    cores=2,
    shared_free=8 * GB,
    memory_free=16 * GB,
    ports=True,
    command=Command(["python", "-m", "penstock_solvers.heat_numpy"], {}),
)
SAMPLE = 32 * 32 * 4  # bytes


def text(*overrides: str, machine: Machine = MACHINE) -> str:
    return "\n".join(report(small(*overrides), machine))


def test_the_report_has_the_bytes_of_a_step_a_simulation_and_the_campaign() -> None:
    found = text()
    assert "temperature: 32 x 32, float32, state: 4.1 kB a step" in found
    assert "410 kB a simulation, 88.5 MB streamed in all" in found
    assert "200 + 16 held out simulations of 100 sent steps; 2 parameters by sobol" in found
    assert "20,000 samples, drawn 1.25 times on average: 2,500 batches" in found


def test_the_report_says_what_would_be_started() -> None:
    found = text("solver.workers=3", "training.ranks=2")
    assert "3 x  python -m penstock_solvers.heat_numpy" in found
    assert "receiver of shard 0: 2,000 segments, 8.19 MB" in found
    assert "receiver of shard 1: 2,000 segments, 8.19 MB" in found
    assert "receiver of shard held-out: 1,900 segments" in found  # 16 + 3 spare, 100 steps each
    assert "12 ports of 127.0.0.1 are free" in found


def test_remarks_of_the_campaign_are_shown() -> None:
    assert "Note: stop.batches = 10 draws 100 of up to 20000 samples" in text("stop.batches=10")


def test_a_speed_that_was_given_is_no_guess() -> None:
    given = "\n".join(report(small(), MACHINE, check_report.DRAWS_PER_S))
    assert "draws per second (a guess; --draws-per-second says better) training takes" in text()
    assert "a guess" not in given


def test_useful_workers_follow_from_the_speeds() -> None:
    assert useful_workers(100.0, 1000.0, 1.25) == (8, 800.0)
    assert useful_workers(100.0, 1000.0, None) == (10, 1000.0)
    assert useful_workers(5000.0, 1000.0, 2.0) == (1, 500.0)


def test_more_processes_than_cores_are_pointed_out() -> None:
    assert "2 worker(s) x 2 MPI rank(s) = 4 processes share 2 core(s)" in text("solver.mpi_ranks=2")
    assert "share" not in text("solver.workers=1")


def test_a_campaign_that_fits_is_not_refused() -> None:
    assert refusals(small(), MACHINE) == []
    assert shared_refusal(small(), free=8 * GB) is None


def test_too_little_shared_memory_is_refused_with_the_arithmetic() -> None:
    machine = dataclasses.replace(MACHINE, shared_free=80_000_000)
    (refusal,) = refusals(small(), machine)
    assert "4,000 samples x 4.1 kB = 16.4 MB" in refusal
    assert "16 held-out + 2 spare simulations x 410 kB = 7.37 MB" in refusal
    assert "80 MB are free" in refusal


def test_the_proposed_capacity_fits() -> None:
    machine = dataclasses.replace(MACHINE, shared_free=80_000_000)
    (refusal,) = refusals(small(), machine)
    capacity = int(refusal.split("Set reservoir.capacity = ")[1].split(",")[0])
    assert 1000 < capacity < 4000
    assert refusals(small(f"reservoir.capacity={capacity}"), machine) == []


def test_without_room_for_any_reservoir_other_ways_are_named() -> None:
    machine = dataclasses.replace(MACHINE, shared_free=66_000_000)
    (refusal,) = refusals(small(), machine)
    assert "Set reservoir.capacity" not in refusal
    assert "crop, stride" in refusal


def test_a_run_is_refused_for_its_slabs_alone() -> None:
    slabs = sum(shard.n_bytes for shard in shard_sizes(small()))
    assert shared_refusal(small(), free=slabs) is None
    assert "does not fit" in (shared_refusal(small(), free=slabs - 1) or "")


def test_too_little_memory_is_refused_with_who_needs_what() -> None:
    machine = dataclasses.replace(MACHINE, memory_free=GB)
    (refusal,) = refusals(small(), machine)
    assert "1 GB are free" in refusal
    assert "2 solver processes 401 MB" in refusal


def test_a_solver_that_cannot_be_started_is_a_refusal() -> None:
    machine = dataclasses.replace(MACHINE, command=None, command_error="The solver is not here.")
    assert refusals(small(), machine) == ["The solver is not here."]
    assert "What would be started" in text(machine=machine)


def test_input_fields_are_counted_a_row_a_simulation() -> None:
    with_inputs = ("fields.k.shape=[100]", "fields.k.role=input")
    plain = {s.shard: s.n_bytes for s in shard_sizes(small())}
    rows = {s.shard: s.n_bytes - plain[s.shard] for s in shard_sizes(small(*with_inputs))}
    assert rows == {"0": (200 + 5) * 400, "held-out": (16 + 5) * 400}


def test_slabs_shrink_with_what_is_sent() -> None:
    (shard, _) = shard_sizes(small("fields.temperature.stride=[2, 2]"))
    assert shard.n_bytes == 4000 * SAMPLE // 4


def test_this_machine_can_be_examined() -> None:
    machine = check_report.examine(small())
    assert machine.cores >= 1
    assert machine.memory_free > 0
    assert machine.command is not None


def test_ports_that_cannot_be_had_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_report.ports_are_free(3)

    class Refused(socket.socket):
        def bind(self, *_: object) -> None:
            raise OSError("Address already in use")

    monkeypatch.setattr(socket, "socket", Refused)
    assert not check_report.ports_are_free(3)


def test_a_stored_data_set_needs_no_solver_and_no_reservoir(tmp_path: Path) -> None:
    (tmp_path / "data.h5").touch()
    found = text("mode=offline", f"offline.dataset={tmp_path / 'data.h5'}", "stop.batches=50")
    assert f"all from {tmp_path / 'data.h5'}" in found
    assert "epochs over the stored samples" in found
    assert "receiver" not in found
    assert "solver processes" not in found


def test_a_campaign_that_only_stores_says_how_much_and_trains_nothing() -> None:
    found = text("mode=store")
    assert "of it to the run's data.h5" in found
    assert "keeper, which writes the data set" in found
    assert "training rank" not in found
