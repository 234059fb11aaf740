"""What a campaign will cost in memory and traffic; `penstock check` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock_server.config import Campaign

# Resident memory of one process, measured: a Ray actor with torch, a solver with DOLFINx,
# and coordinator, supervisor, receivers, validator and Ray's own daemons together.
RANK_BYTES = 450_000_000
SOLVER_BYTES = 200_000_000
SERVICES_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Estimates:
    """Bytes and counts; those that need a known number of steps are ceilings without it."""

    sample_bytes: int
    segment_bytes: int
    slab_bytes: int  # the reservoirs of all ranks
    held_out_bytes: int  # validation and test simulations, kept whole
    simulation_bytes: int
    streamed_bytes: int  # over the whole campaign
    samples: int  # of the training simulations
    batches: int | None
    memory_bytes: int  # everything on one machine: slabs and processes
    remarks: tuple[str, ...]


def estimates(c: Campaign) -> Estimates:
    step_bytes = sum(f.sent_bytes for f in c.step_fields.values())
    input_bytes = sum(f.sent_bytes for f in c.input_fields.values())
    segment_bytes = step_bytes * c.stream.segment_steps
    simulation_bytes = step_bytes * c.steps_sent + input_bytes
    segments = math.ceil(c.reservoir.capacity / c.samples_per_segment)
    slab_bytes = segments * segment_bytes + c.design.simulations * input_bytes
    held_out_bytes = c.design.held_out * (c.segments_per_simulation * segment_bytes + input_bytes)
    windows = min(c.stream.window_bytes, simulation_bytes) * c.solver.workers
    processes = c.solver.workers * c.solver.mpi_ranks * SOLVER_BYTES
    processes += c.training.ranks * RANK_BYTES + SERVICES_BYTES
    return Estimates(
        sample_bytes=step_bytes * c.training.window,
        segment_bytes=segment_bytes,
        slab_bytes=slab_bytes,
        held_out_bytes=held_out_bytes,
        simulation_bytes=simulation_bytes,
        streamed_bytes=simulation_bytes * (c.design.simulations + c.design.held_out),
        samples=c.design.simulations * c.samples_per_simulation,
        batches=c.planned_batches,
        memory_bytes=slab_bytes + held_out_bytes + windows + processes,
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
    if c.design.validation == 0:
        found.append("Without validation simulations (design.validation) no error is reported.")
    return found
