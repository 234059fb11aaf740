"""What `penstock try` prints of a program; pure, called by `try_solver`.

The figures, then [solver] and [fields] for a campaign file where there is none, then the problems.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from penstock_server.check_report import draws_of, useful_workers
from penstock_server.config import Campaign
from penstock_server.figures import duration, number, percent, size
from penstock_server.try_counts import Counts, SimulationSeen
from penstock_server.try_findings import Trial

RATIO = 1.25  # draws per sample, where no campaign says so
# What stands before the solver in an mpirun's command, and how many values follow it.
MPI_OPTIONS = {
    "-n": 1, "-np": 1, "--np": 1, "-c": 1, "-N": 1, "-ppn": 1, "-host": 1, "--host": 1, "-x": 1,
    "-hostfile": 1, "--hostfile": 1, "-machinefile": 1, "--machinefile": 1, "--map-by": 1,
    "--rank-by": 1, "--bind-to": 1, "-wdir": 1, "--wdir": 1, "-genv": 2, "--mca": 2, "-mca": 2,
}  # fmt: skip


def report(
    trial: Trial,
    problems: Sequence[str],
    campaign: Campaign | None = None,
    draws_per_s: float | None = None,
) -> Iterator[str]:
    """The lines that `penstock try` prints."""
    yield from _program(trial)
    if trial.counts.fields:
        yield from _fields(trial.counts)
    steps = [b - a for s in trial.counts.simulations.values() for a, b in pairwise(s.done_s)]
    if steps:
        yield from _times(trial, steps)
        yield from _workers(trial, steps, campaign, draws_per_s)
    if campaign is None and trial.counts.fields:
        yield "For the campaign file"
        yield from (f"  {text}".rstrip() for text in proposal(trial))
    if problems:
        yield "Problems"
        yield from (f"  {problem}" for problem in problems)
        yield f"  What the program wrote is in {trial.logs}."
    else:
        yield "A campaign can take this program as it is."


def _program(trial: Trial) -> Iterator[str]:
    desk, counts = trial.desk, trial.counts
    yield "Program"
    if desk.greeted_s is None or desk.started_s is None:
        yield f"  it never asked for a simulation; ran {duration(trial.seconds)}"
        return
    yield (
        f"  {desk.n_ranks} MPI rank(s); first simulation asked for after "
        f"{duration(desk.greeted_s - desk.started_s)}; ran {duration(trial.seconds)}"
    )
    whole = counts.whole
    lengths = sorted({sim.n_steps for sim in whole if sim.n_steps is not None})
    each = f", {' or '.join(map(str, lengths))} steps each" if lengths else ""
    yield f"  {len(whole)} of {len(counts.simulations)} simulations ended{each}"
    if desk.starts > 1:
        yield f"  it runs one simulation and exits: started {desk.starts} times"


def _fields(counts: Counts) -> Iterator[str]:
    yield "Fields"
    for index, seen in sorted(counts.fields.items()):
        shape = counts.shape(index)
        dtype = "/".join(sorted(seen.dtypes)) or "unknown"
        width = np.dtype(dtype).itemsize if len(seen.dtypes) == 1 else 0
        what = " x ".join(map(str, shape)) or "one number"
        role = "input, once a simulation" if index in counts.inputs else "every step"
        n_bytes = math.prod(shape) * width
        span = f"from {seen.low:.4g} to {seen.high:.4g}" if seen.low <= seen.high else "none finite"
        yield f"  {counts.name(index)}: {what}, {dtype}, {size(n_bytes)}, {role}; values {span}"
        parts = len(counts.shapes.get(index, {}))
        problems = counts.layout(index)
        owned = "every value comes from one rank" if not problems else "; ".join(problems)
        yield f"    {parts} rank(s): {owned}"
        if seen.low == seen.high and not seen.not_finite:
            yield "    all its values in all steps are the same number; is it the right array?"


def _times(trial: Trial, steps: list[float]) -> Iterator[str]:
    counts = trial.counts
    whole = counts.whole
    yield "Time"
    yield (
        f"  a step: {duration(statistics.median(steps))} (median of {number(len(steps))}; the "
        f"slowest {duration(max(steps))})"
    )
    firsts = [s.done_s[0] - s.assigned_s for s in counts.simulations.values() if s.done_s]
    yield f"  the first step of a simulation comes after {duration(statistics.median(firsts))}"
    if trial.desk.n_ranks > 1:
        spreads = [spread for s in counts.simulations.values() for spread in s.spread_s]
        yield f"  the ranks send a step within {duration(statistics.median(spreads))} (median)"
    if whole:
        lasted = statistics.mean((s.ended_s or 0.0) - s.assigned_s for s in whole)
        yield f"  a simulation: {duration(lasted)}"
    working = sum((s.ended_s or 0.0) - s.assigned_s for s in whole)
    if working > 0:
        yield f"  blocked while sending: {_blocked(trial, whole, working)} of the time"
    per_step = [
        (s.n_bytes - s.input_bytes) / len(s.done_s) for s in counts.simulations.values() if s.done_s
    ]
    yield f"Volume\n  {size(statistics.mean(per_step))} a step" + (
        f", {size(statistics.mean(s.n_bytes for s in whole))} a simulation" if whole else ""
    )


def _blocked(trial: Trial, whole: Sequence[SimulationSeen], working_s: float) -> str:
    """The share of the time in which the program waited for this server, which grants all credit.

    It waits for the first credit of a simulation, and for acknowledgements if its window is full;
    whether it was is not seen here, so then this server's own time is the bound.
    """
    waited_s = sum(
        s.first_part_s - s.first_open_s
        for s in whole
        if s.first_part_s is not None and s.first_open_s is not None and not s.input_bytes
    )
    largest = max(s.n_bytes / s.n_parts for s in whole)
    if largest < trial.window_bytes:
        return percent(waited_s / working_s)
    return f"at most {percent(min(1.0, (waited_s + trial.busy_s) / working_s))}"


def _workers(
    trial: Trial, steps: list[float], campaign: Campaign | None, given: float | None
) -> Iterator[str]:
    whole = [s for s in trial.counts.whole if s.done_s]
    lasted = sum((s.ended_s or 0.0) - s.assigned_s for s in whole)
    per_s = sum(len(s.done_s) for s in whole) / lasted if lasted else 1 / statistics.median(steps)
    ratio = campaign.reservoir.draws_per_sample if campaign else RATIO
    draws_per_s, guess = draws_of(given)
    n, wanted = useful_workers(per_s, draws_per_s, ratio)
    yield "Useful number of workers"
    yield (
        f"  one worker here brings {number(per_s)} steps per second; training at "
        f"{number(draws_per_s)} draws per second{guess}, {ratio or 1:g} a sample, takes "
        f"{number(wanted)}"
    )
    cores = len(os.sched_getaffinity(0))
    processes = n * trial.desk.n_ranks
    room = "" if processes <= cores else f"; this machine has {cores}"
    yield f"  {n} worker(s) keep it busy: {processes} processes, a core each{room}"


def proposal(trial: Trial) -> list[str]:
    """[solver] and [fields] of a campaign file for this program, as TOML."""
    counts = trial.counts
    lengths = {sim.n_steps for sim in counts.whole if sim.n_steps}
    command = without_mpirun(trial.command)
    quoted = ", ".join('"' + a.replace("\\", "\\\\").replace('"', '\\"') + '"' for a in command)
    lines = ["[solver]", f"command = [{quoted}]", f"mpi_ranks = {max(1, trial.desk.n_ranks)}"]
    if len(lengths) == 1:
        lines.append(f"steps = {lengths.pop()}")
    else:
        longest = max([1, *(len(s.done_s) for s in counts.simulations.values())])
        lines.append(f"max_steps = {longest}  # the most that came; no simulation may have more")
    for index in sorted(counts.fields):
        shape = counts.shape(index)
        lines += ["", f"[fields.{counts.name(index).replace(' ', '_')}]", f"shape = {list(shape)}"]
        lines.append('dtype = "float32"  # or "float64", for twice the bytes')
        if index in counts.inputs:
            lines.append('role = "input"')
        elif not shape:
            lines.append('role = "quantity"')
    return lines


def without_mpirun(command: Sequence[str]) -> list[str]:
    """The solver's own command; Penstock puts an mpirun before it."""
    starters = ("mpirun", "mpiexec", "mpiexec.hydra", "mpirun.openmpi", "mpirun.mpich")
    if not command or Path(command[0]).name not in starters:
        return list(command)
    at = 1
    while at < len(command) and command[at].startswith("-"):
        at += 1 + MPI_OPTIONS.get(command[at], 0)
    return list(command[at:]) or list(command)
