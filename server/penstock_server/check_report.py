"""What `penstock check` prints: what a campaign costs, whether it fits here, what would be started.

`examine` collects the facts about this machine; `report` and `refusals` are pure.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock_server.addresses import HOST, security
from penstock_server.config import Campaign
from penstock_server.doctor import SHARED_MEMORY
from penstock_server.estimate import SNAPSHOT_BYTES, estimates
from penstock_server.figures import duration, number, size
from penstock_server.interpreters import Command, SolverError, solver_command
from penstock_server.physics import PhysicsError, find_check
from penstock_server.sizes import n_ports, shard_names, shard_sizes

# A guess: what a small network on one CPU core draws; summary.json of an earlier run has the truth.
DRAWS_PER_S = 1000.0
RESERVE = 0.02  # of /dev/shm, for what else is there
SECURITY = {
    "loopback": "no keys, for only this machine reaches the sockets",
    "curve": "CURVE with keys of the run's own; encryption leaves 0.27 to 0.48 of the throughput",
    "trusted-network": "none; whoever reaches the sockets may use them",
}


@dataclass(frozen=True)
class Machine:
    """What this machine has for a campaign; bytes."""

    cores: int
    shared_free: int
    memory_free: int
    ports: bool  # whether enough of the loopback interface's are free
    command: Command | None  # of one worker
    command_error: str = ""
    check_error: str = ""  # of admission.check


def examine(campaign: Campaign) -> Machine:
    """Looks at memory, cores, ports and the solver's command; starts nothing of the campaign."""
    command, error = None, ""
    try:
        command = solver_command(campaign) if campaign.produces else None
    except SolverError as problem:
        error = str(problem)
    check_error = ""
    try:
        if campaign.admission.check is not None:
            find_check(campaign.admission.check)
    except PhysicsError as problem:
        check_error = str(problem)
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        shared_free=_shared_memory(),
        memory_free=memory_free(),
        ports=ports_are_free(n_ports(shard_names(campaign))),
        command=command,
        command_error=error,
        check_error=check_error,
    )


def _shared_memory() -> int:
    """Free bytes where the slabs will be."""
    folder = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path.cwd()
    return shutil.disk_usage(folder).free


def memory_free() -> int:
    """Bytes that may still be used: of the machine, or of the container that this is."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return max(0, min(free, limit - int((group / "memory.current").read_text())))
    except (OSError, ValueError):  # no limit, or another version of control groups
        return free


def ports_are_free(n: int) -> bool:
    """Whether n sockets can listen on 127.0.0.1 at once."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
    except OSError:
        return False
    finally:
        for each in sockets:
            each.close()
    return True


def useful_workers(
    steps_per_s: float, draws_per_s: float, draws_per_sample: float | None
) -> tuple[int, float]:
    """How many workers keep a training busy, and the new samples per second that it takes.

    steps_per_s: of one worker, everything between its steps included. A training that draws each
    sample r times takes draws_per_s / r new ones; without a limiter it takes any number, and one
    draw a sample is counted.
    """
    wanted = draws_per_s / (draws_per_sample or 1.0)
    return max(1, math.ceil(wanted / steps_per_s)), wanted


def draws_of(given: float | None) -> tuple[float, str]:
    """What training draws per second, and in words what it is if nobody said it."""
    if given is None:
        return DRAWS_PER_S, " (a guess; --draws-per-second says better)"
    return given, ""


# -- refusals ------------------------------------------------------------------------------------


def refusals(c: Campaign, machine: Machine) -> list[str]:
    """Why the campaign cannot run here, with the arithmetic; empty if it can."""
    found = [why for why in (machine.command_error, machine.check_error) if why]
    cost = estimates(c)
    in_shared = cost.shared_bytes + SNAPSHOT_BYTES
    if in_shared > machine.shared_free * (1 - RESERVE):
        found.append(_too_little_shared(c, machine.shared_free))
    if cost.memory_bytes > machine.memory_free:
        parts = ", ".join(f"{words} {size(n)}" for words, n in cost.memory)
        found.append(
            f"The campaign needs about {size(cost.memory_bytes)} of memory and "
            f"{size(machine.memory_free)} are free: {parts}. Lower reservoir.capacity, "
            "solver.workers or design.validation, or use a larger machine."
        )
    if not machine.ports:
        found.append(
            f"{n_ports(shard_names(c))} free ports of 127.0.0.1 are needed, and they cannot be "
            "had. End programs that keep many, or widen net.ipv4.ip_local_port_range."
        )
    return found


def shared_refusal(c: Campaign, free: int | None = None) -> str | None:
    """For `penstock run`: why the slabs do not fit, or None. The rest of memory is a guess."""
    cost = estimates(c)
    free = _shared_memory() if free is None else free
    if cost.shared_bytes <= free:
        return None
    return _too_little_shared(c, free)


def _too_little_shared(c: Campaign, free: int) -> str:
    cost = estimates(c)
    slabs, held_out = cost.slab_bytes, cost.held_out_bytes
    per_sample = slabs / c.reservoir.capacity
    sentence = (
        f"The reservoir does not fit into {SHARED_MEMORY}: {number(c.reservoir.capacity)} samples "
        f"x {size(per_sample)} = {size(slabs)}"
    )
    if held_out:
        n = c.design.held_out + c.solver.workers
        sentence += (
            f", and {c.design.held_out} held-out + {c.solver.workers} spare simulations x "
            f"{size(held_out / n)} = {size(held_out)}"
        )
    sentence += f", and {size(SNAPSHOT_BYTES)} for snapshots; {size(free)} are free."
    usable = free * (1 - RESERVE) - held_out - SNAPSHOT_BYTES
    least = max(2 * c.training.global_batch, c.reservoir.threshold + 1)
    possible = math.floor(usable / per_sample) if per_sample else 0
    if possible >= least:
        sentence += f" Set reservoir.capacity = {_round_down(possible)}"
    else:
        sentence += " Send less of the fields (crop, stride, every), hold out fewer simulations"
    return sentence + (
        ", or give it more: docker run --shm-size=4g, or mount -o remount,size=75% /dev/shm."
    )


def _round_down(n: int) -> int:
    """To two digits, so that it reads like a choice."""
    unit: int = 10 ** max(0, len(str(n)) - 2)
    return n // unit * unit


# -- the report ----------------------------------------------------------------------------------


def report(c: Campaign, machine: Machine, draws_per_s: float | None = None) -> Iterator[str]:
    """The lines that `penstock check` prints for a valid campaign; draws_per_s: None is a guess."""
    yield from _production(c)
    if c.trains:
        yield from _training(c)
    yield from _memory(c, machine)
    if c.mode == "online":
        yield from _workers(c, machine, draws_per_s)
    yield from _launch(c, machine)
    for remark in estimates(c).remarks:
        yield f"Note: {remark}"


def _production(c: Campaign) -> Iterator[str]:
    cost, design = estimates(c), c.design
    exact = "" if c.solver.steps is not None else "up to "
    held_out = f" + {design.held_out} held out" if design.held_out else ""
    yield "Production"
    yield (
        f"  {number(design.simulations)}{held_out} simulations of {exact}{c.steps_sent} sent "
        f"steps; {len(design.parameters)} parameters by {design.sampler}"
    )
    for name, field in c.fields.items():
        shape = " x ".join(map(str, field.sent_shape)) or "one number"
        yield f"  {name}: {shape}, {field.dtype}, {field.role}: {size(field.sent_bytes)} a step"
    if not c.produces:
        yield f"  {exact}{size(cost.simulation_bytes)} a simulation; all from {c.offline.dataset}"
        return
    yield (
        f"  {exact}{size(cost.simulation_bytes)} a simulation, "
        f"{exact}{size(cost.streamed_bytes)} streamed in all, {_to_disk(c, cost.stored_bytes)}"
    )


def _to_disk(c: Campaign, n_bytes: int) -> str:
    if c.kept == "none":
        return "nothing of it to a disk"
    return f"{size(n_bytes)} of it to the run's data.h5"


def _training(c: Campaign) -> Iterator[str]:
    cost, training, reservoir = estimates(c), c.training, c.reservoir
    ratio = reservoir.draws_per_sample
    draws = f"drawn {ratio:g} times on average" if ratio else "drawn as fast as training goes"
    batches = "as many batches as that gives"
    if cost.batches is not None:
        batches = f"{number(cost.batches)} batches"
    yield "Training"
    yield (
        f"  {training.surrogate} on {training.ranks} rank(s) x {training.batch_size} samples a "
        f"batch; {number(cost.samples)} samples, {draws}: {batches}"
    )
    if c.mode == "offline":
        yield "  epochs over the stored samples, through PyTorch's DataLoader"
        return
    yield (
        f"  reservoir: {reservoir.policy}, {number(reservoir.capacity)} samples, training starts "
        f"at {number(reservoir.threshold)}"
    )


def _memory(c: Campaign, machine: Machine) -> Iterator[str]:
    cost = estimates(c)
    in_shared = cost.shared_bytes + SNAPSHOT_BYTES
    yield "Memory (processes are guesses from small campaigns)"
    for words, n_bytes in cost.memory:
        yield f"  {size(n_bytes):>8}  {words}"
    yield (
        f"  {size(cost.memory_bytes):>8}  in all; {size(machine.memory_free)} are free. Of it "
        f"{size(in_shared)} in {SHARED_MEMORY}, where {size(machine.shared_free)} are"
    )


def _workers(c: Campaign, machine: Machine, given: float | None) -> Iterator[str]:
    workers, ranks = c.solver.workers, c.solver.mpi_ranks
    draws_per_s, guess = draws_of(given)
    _, wanted = useful_workers(1.0, draws_per_s, c.reservoir.draws_per_sample)
    yield "Useful number of workers"
    yield (
        f"  at {number(draws_per_s)} draws per second{guess} training takes {number(wanted)} new "
        f"samples per second"
    )
    times = ", ".join(
        f"{useful_workers(1 / step_s, draws_per_s, c.reservoir.draws_per_sample)[0]} if a step "
        f"takes {duration(step_s)}"
        for step_s in (0.01, 0.1, 1.0)
    )
    yield (
        f"  {workers} worker(s) keep it busy if a step takes {duration(workers / wanted)} or less; "
        f"useful are {times}"
    )
    if workers * ranks > machine.cores:
        yield (
            f"  {workers} worker(s) x {ranks} MPI rank(s) = {workers * ranks} processes share "
            f"{machine.cores} core(s) with training: more of them bring no more steps"
        )
    yield "  `penstock try --campaign FILE` measures the time of a step"


def _launch(c: Campaign, machine: Machine) -> Iterator[str]:
    yield "What would be started"
    if machine.command is not None:
        for name, value in machine.command.env.items():
            if name in c.solver.env:
                yield f"  with {name}={shlex.quote(value)}"
        yield f"  {c.solver.workers} x  {shlex.join(machine.command.argv)}"
    yield "  1 x  coordinator"
    for slab in shard_sizes(c) if c.produces else ():
        yield (
            f"  1 x  receiver of shard {slab.shard}: {number(slab.slots)} segments, "
            f"{size(slab.n_bytes)}"
        )
    if c.kept != "none":
        yield "  1 x  keeper, which writes the data set"
    if c.trains:
        yield f"  {c.training.ranks} x  training rank (Ray), on {c.training.device}"
    if c.trains and c.design.held_out:
        yield "  1 x  validator"
    state = "are free" if machine.ports else "cannot be had"
    yield f"  {n_ports(shard_names(c))} ports of 127.0.0.1 {state}"
    yield f"  security: {SECURITY[security(c.security.mode, [f'tcp://{HOST}:0'])]}"
