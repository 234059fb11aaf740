"""What a campaign will cost in memory and traffic; `penstock check` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock_server.config import Campaign
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.sizes import shard_sizes

# Resident memory of one process, measured: a Ray actor with torch, a solver with DOLFINx,
# and coordinator, supervisor, receivers, validator and Ray's own daemons together.
RANK_BYTES = 450_000_000
SOLVER_BYTES = 200_000_000
SERVICES_BYTES = 1_500_000_000
SNAPSHOT_BYTES = 64_000_000  # of weights and optimiser in memory; a guess, small networks have less


@dataclass(frozen=True)
class Estimates:
    """Bytes and counts; those that need a known number of steps are ceilings without it."""

    sample_bytes: int
    segment_bytes: int
    slab_bytes: int  # the reservoirs of all ranks
    held_out_bytes: int  # validation and test simulations, kept whole, with the spare ones
    simulation_bytes: int
    streamed_bytes: int  # over the whole campaign
    stored_bytes: int  # of these, in the data set
    samples: int  # of the training simulations
    batches: int | None
    memory: tuple[tuple[str, int], ...]  # who needs how many bytes
    remarks: tuple[str, ...]

    @property
    def shared_bytes(self) -> int:
        """All slabs, in shared memory."""
        return self.slab_bytes + self.held_out_bytes

    @property
    def memory_bytes(self) -> int:
        """On one machine: slabs, snapshots and processes."""
        return sum(n_bytes for _, n_bytes in self.memory)


def seen_bytes(c: Campaign) -> int:
    """Of one step as the network sees it: whole, or a patch of it."""
    patch, total = c.training.patch, 0
    for spec in c.step_fields.values():
        nodes = math.prod(spec.sent_grid)
        seen = math.prod(patch) if patch and len(patch) == len(spec.sent_grid) else nodes
        total += spec.sent_bytes * seen // nodes
    return total


def estimates(c: Campaign) -> Estimates:
    step_bytes = sum(f.sent_bytes for f in c.step_fields.values())
    input_bytes = sum(f.sent_bytes for f in c.input_fields.values())
    simulation_bytes = step_bytes * c.steps_sent + input_bytes
    slabs = {size.shard: size.n_bytes for size in shard_sizes(c)} if c.produces else {}
    held_out_bytes = slabs.get(HELD_OUT, 0)
    windows = min(c.stream.window_bytes, simulation_bytes) * c.solver.workers
    kept = c.kept
    fraction = {"none": 0.0, "held-out": 0.0, "all": 1.0}[kept] if isinstance(kept, str) else kept
    stored = fraction * c.design.simulations + (c.design.held_out if kept != "none" else 0)
    n_solvers = c.solver.workers * c.solver.mpi_ranks if c.produces else 0
    n_ranks = c.training.ranks if c.trains else 0
    simulations = c.design.simulations + c.design.held_out if c.produces else 0
    memory = (
        *((f"shard {shard}", n_bytes) for shard, n_bytes in slabs.items()),
        ("snapshots", SNAPSHOT_BYTES if c.trains else 0),
        (f"{n_solvers} solver processes", n_solvers and n_solvers * SOLVER_BYTES + windows),
        (f"{n_ranks} training ranks", n_ranks * RANK_BYTES),
        ("the other processes and Ray", SERVICES_BYTES),
    )
    return Estimates(
        sample_bytes=seen_bytes(c) * c.training.window,
        segment_bytes=step_bytes * c.stream.segment_steps,
        slab_bytes=sum(slabs.values()) - held_out_bytes,
        held_out_bytes=held_out_bytes,
        simulation_bytes=simulation_bytes,
        streamed_bytes=simulation_bytes * simulations,
        stored_bytes=round(simulation_bytes * stored),
        samples=c.design.simulations * c.samples_per_simulation,
        batches=c.planned_batches,
        memory=tuple((words, n_bytes) for words, n_bytes in memory if n_bytes),
        remarks=tuple(_remarks(c)),
    )


def _remarks(c: Campaign) -> list[str]:
    """What is possible and perhaps not meant."""
    found = []
    samples = c.design.simulations * c.samples_per_simulation
    ratio = c.reservoir.draws_per_sample
    if c.stop.batches is not None and ratio is not None and c.solver.steps is not None:
        possible = math.floor(samples * ratio + c.reservoir.band) // c.training.global_batch
        if c.stop.batches > possible:
            found.append(
                f"stop.batches = {c.stop.batches} will not be reached: {samples} samples drawn "
                f"{ratio:g} times give about {possible} batches."
            )
    if c.stop.batches is not None and c.stop.batches * c.training.global_batch < samples:
        drawn = c.stop.batches * c.training.global_batch
        found.append(
            f"stop.batches = {c.stop.batches} draws {drawn} of up to {samples} samples; "
            "the rest will be named untrained_by_budget."
        )
    if c.reservoir.threshold > samples:
        found.append(
            f"reservoir.threshold = {c.reservoir.threshold} is more than all {samples} samples: "
            "training starts when the last simulation has ended."
        )
    if c.steps_sent % c.stream.segment_steps:
        found.append(
            f"{c.steps_sent} steps are not a multiple of segment_steps = "
            f"{c.stream.segment_steps}: the last segment of a simulation is shorter."
        )
    window, stride = c.training.window, c.training.stride
    if window > 1 and c.samples_per_segment < stride:
        unused = (window - 1) * (stride - c.samples_per_segment)
        found.append(
            f"{unused} of the {c.stream.segment_steps} steps of a segment are in no sample: they "
            "are stored and never drawn. Every step is in one with stream.segment_steps = "
            f"{window * stride}, training.window x training.stride, or more."
        )
    if c.design.validation == 0:
        found.append("Without validation simulations (design.validation) no error is reported.")
    return found
