"""`penstock try -- COMMAND`: runs any program against a counting server and says what it sends.

`try_solver` starts the program through an agent, as a campaign would, and talks to it. `findings`,
`proposal` and `report` are pure: from what was counted to what is printed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from penstock_server.check_report import DRAWS_PER_S, duration, useful_workers
from penstock_server.config import Campaign
from penstock_server.display import clock_time, number, percent, size
from penstock_server.interpreters import (
    SolverError,
    find_interpreter,
    solver_command,
    solver_environment,
)
from penstock_server.launch import Agency, LocalLauncher
from penstock_server.try_server import CountingServer, Counts, Desk, SimulationSeen

GRACE_S = 10.0  # for a program to end by itself when there are no more simulations
RATIO = 1.25  # draws per sample, where no campaign says so
# What stands before the solver in an mpirun's command, and how many values follow it.
MPI_OPTIONS = {
    "-n": 1, "-np": 1, "--np": 1, "-c": 1, "-N": 1, "-ppn": 1, "-host": 1, "--host": 1, "-x": 1,
    "-hostfile": 1, "--hostfile": 1, "-machinefile": 1, "--machinefile": 1, "--map-by": 1,
    "--rank-by": 1, "--bind-to": 1, "-wdir": 1, "--wdir": 1, "-genv": 2, "--mca": 2, "-mca": 2,
}  # fmt: skip


class TryError(ValueError):
    """What was asked of `penstock try` makes no sense; the text says what would."""


@dataclass(frozen=True)
class Trial:
    """What was counted of a program; the report is made of it. Seconds of one clock."""

    command: list[str]  # as it was given, {python} included
    counts: Counts
    desk: Desk
    seconds: float
    busy_s: float  # the server's own
    window_bytes: int
    time_over: bool = False
    had_to_be_ended: bool = False
    logs: str = ""


def try_solver(
    command: Sequence[str],
    console: Console,
    *,
    campaign: Campaign | None = None,
    parameters: Sequence[str] = (),
    simulations: int = 2,
    seconds: float = 60.0,
    draws_per_s: float = DRAWS_PER_S,
) -> int:
    """Runs the program, prints the report; 0 if it sent what a campaign can take.

    parameters: "NAME=LOW:HIGH" or "NAME=VALUE". Raises TryError or SolverError.
    """
    argv, environment = program(command, campaign)
    points = inputs(parameters, campaign, simulations)
    console.print(
        Text(f"Trying {shlex.join(argv)}: {simulations} simulations or {clock_time(seconds)}."),
        soft_wrap=True,
    )
    logs = Path(tempfile.mkdtemp(prefix="penstock-try-"))
    keep = False
    try:
        trial = run(command or argv, argv, environment, points, campaign, seconds, logs)
        problems = findings(trial, campaign)
        keep = bool(problems)
        for text in report(trial, problems, campaign, draws_per_s):
            console.print(Text(text, "bold" if text[:1] not in (" ", "") else ""), soft_wrap=True)
    finally:
        if not keep:
            shutil.rmtree(logs, ignore_errors=True)
    return 1 if problems else 0


def program(command: Sequence[str], campaign: Campaign | None) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment to start; the campaign's solver if none is given."""
    if not command:
        if campaign is None:
            raise TryError(
                "There is nothing to try. Give a command after --, such as "
                "`penstock try -- mpirun -n 2 ./solver`, or a campaign file with --campaign."
            )
        chosen = solver_command(campaign)
        return chosen.argv, chosen.env
    python = find_interpreter().path if any("{python}" in a for a in command) else sys.executable
    argv = [argument.replace("{python}", python) for argument in command]
    if shutil.which(argv[0]) is None:
        raise SolverError(
            f"The command {argv[0]} was not found or is not executable. Give a path, or a program "
            "on PATH."
        )
    environment = {
        **solver_environment(),
        # A laptop has fewer cores than `mpirun -n` asks for; slow is better than refused.
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
    }
    return argv, {**environment, **(campaign.solver.env if campaign else {})}


def inputs(
    parameters: Sequence[str], campaign: Campaign | None, n: int, seed: int = 1
) -> list[dict[str, float]]:
    """The parameters of n simulations: the campaign's design, or as given on the command line."""
    given = dict(_range(text) for text in parameters)
    rng = np.random.default_rng(seed)
    points: list[dict[str, float]] = [{} for _ in range(n)]
    if campaign is not None:
        from penstock_server.design import training_design

        points = training_design(campaign).next(n)
    for point in points:
        for name, (low, high) in given.items():
            point[name] = low if low == high else float(rng.uniform(low, high))
    return points


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, equals, value = text.partition("=")
    low, colon, high = value.partition(":")
    try:
        if not (equals and name.strip()):
            raise ValueError(text)
        return name.strip(), (float(low), float(high if colon else low))
    except ValueError as error:
        raise TryError(
            f"--parameter expects NAME=LOW:HIGH or NAME=VALUE with numbers, got {text!r}."
        ) from error


def run(
    command: Sequence[str],
    argv: Sequence[str],
    environment: Mapping[str, str],
    points: Sequence[dict[str, float]],
    campaign: Campaign | None,
    seconds: float,
    logs: Path,
) -> Trial:
    """Starts the program and counts until it ends or the time is over; ends it in any case."""
    counts = Counts(list(campaign.fields) if campaign else ())
    server = CountingServer(counts)
    welcome = server.welcome(campaign)
    desk = Desk(counts, welcome, points)
    launcher = LocalLauncher(
        Agency(
            coordinator=server.address,
            command=tuple(argv),
            log_dir=logs,
            python=sys.executable,
            environment=environment,
            beat_s=0.25,
            coordinator_patience_s=30.0,
        )
    )
    began = time.monotonic()
    time_over = had_to_be_ended = False
    try:
        launcher.start(1)
        while not desk.finished:
            server.turn(desk, 0.1)
            launcher.poll()
            now = time.monotonic()
            if now - began > seconds:
                desk.over = time_over = True
            since = began + seconds if desk.over_s is None else desk.over_s
            if now - since > GRACE_S and not desk.ending:
                desk.ending = True
                had_to_be_ended = desk.over_s is not None
            if now - since > 3 * GRACE_S:
                break
        ended = time.monotonic()
        while launcher.alive and time.monotonic() - ended < 2.0:  # its goodbye wants an answer
            server.turn(desk, 0.05)
            launcher.poll()
    finally:
        launcher.stop(5.0)
        server.close()
    return Trial(
        command=list(command),
        counts=counts,
        desk=desk,
        seconds=ended - began,
        busy_s=server.busy_s,
        window_bytes=int(welcome["stream"]["window_bytes"]),
        time_over=time_over,
        had_to_be_ended=had_to_be_ended,
        logs=str(logs),
    )


# -- what was found ------------------------------------------------------------------------------


def findings(trial: Trial, campaign: Campaign | None) -> list[str]:
    """What keeps the program from serving a campaign, one sentence each."""
    counts, desk = trial.counts, trial.desk
    found = list(_how_it_ended(trial))
    found += counts.problems
    for index in sorted({*counts.fields, *counts.shapes}):
        name, seen = counts.name(index), counts.seen(index)
        found += [f"{name}: {problem}." for problem in (*counts.layout(index), *seen.problems)]
        if seen.not_finite:
            found.append(
                f"{name}: {seen.not_finite} values are NaN or infinite, the first at "
                f"{seen.first_not_finite}. A campaign refuses such a simulation; call "
                "sim.fail(reason) instead of sending it."
            )
    for sim in counts.simulations.values():
        number_ = f"Simulation {sim.simulation}"
        if sim.outcome in ("failed", "refused"):
            found.append(f"{number_} {sim.outcome}: {sim.reason}.{_advice(sim.reason)}")
        if sim.twice:
            found.append(f"{number_} sent {sim.twice} parts twice.")
        if sim.ended_s is not None and sim.open_steps:
            step, (parts, _) = next(iter(sim.open_steps.items()))
            missing = sorted(set(range(sim.n_parts)) - parts)
            found.append(
                f"{number_}: step {step} came without rank {', '.join(map(str, missing))}. Every "
                "rank sends its part of every step."
            )
        if any(b <= a for a, b in pairwise(sim.t)):
            found.append(f"{number_}: the time t does not grow from step to step.")
        if campaign is not None and sim.n_steps is not None and sim.outcome == "ended":
            found += _steps_differ(sim, campaign)
    if desk.n_parts > 1 and campaign is not None and campaign.solver.mpi_ranks != desk.n_parts:
        found.append(
            f"The program ran on {desk.n_parts} MPI ranks, the campaign says mpi_ranks = "
            f"{campaign.solver.mpi_ranks}."
        )
    return list(dict.fromkeys(found))


def _steps_differ(sim: SimulationSeen, campaign: Campaign) -> list[str]:
    expected, exact = campaign.steps_sent, campaign.solver.steps is not None
    if sim.n_steps == expected or (not exact and (sim.n_steps or 0) < expected):
        return []
    key = "steps" if exact else "max_steps"
    return [
        f"Simulation {sim.simulation} sent {sim.n_steps} steps; by solver.{key} of the campaign "
        f"it is to send {'' if exact else 'at most '}{expected}."
    ]


def _how_it_ended(trial: Trial) -> Iterator[str]:
    desk = trial.desk
    if desk.exit_code and not desk.ending:
        last = _last_lines(desk.stderr_tail)
        words = f" Its last words:{last}" if last else ""
        yield f"The program ended with exit code {desk.exit_code}.{words}"
    if desk.greeted_s is None:
        if trial.time_over:
            yield (
                f"The program did not ask for a simulation within {duration(trial.seconds)}. "
                "Give it more with --seconds, or see whether it calls penstock.connect()."
            )
        else:
            yield (
                "The program ended without having asked for a simulation. It has to call "
                "penstock.connect() and to loop over link.simulations()."
            )
    elif not trial.counts.simulations:
        yield "The program connected and never asked for a simulation: link.simulations()."
    elif not any(sim.done_s for sim in trial.counts.simulations.values()):
        yield "Not one whole step came. Call sim.send(t, name=array) on every rank for every step."
    elif trial.time_over and not _ended(trial.counts):
        yield "The time was over before a simulation had ended; give it more with --seconds."
    if trial.had_to_be_ended:
        yield (
            f"The program went on for {clock_time(GRACE_S)} after it was told that there are no "
            "more simulations, and was ended."
        )


def _last_lines(text: str, n: int = 12) -> str:
    return "".join(f"\n    {row}" for row in text.strip().splitlines()[-n:])


def _advice(reason: str) -> str:
    missing = re.search(r"KeyError: '(\w+)'", reason)
    if missing is None:
        return ""
    return f" If that is a parameter of yours, give it: --parameter {missing[1]}=LOW:HIGH."


def _ended(counts: Counts) -> list[SimulationSeen]:
    """The simulations that came whole."""
    return [
        sim
        for sim in counts.simulations.values()
        if sim.ended_s is not None and sim.outcome in ("ended", "running")
    ]


# -- the report ----------------------------------------------------------------------------------


def report(
    trial: Trial,
    problems: Sequence[str],
    campaign: Campaign | None = None,
    draws_per_s: float = DRAWS_PER_S,
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
        f"  {desk.n_parts} MPI rank(s); first simulation asked for after "
        f"{duration(desk.greeted_s - desk.started_s)}; ran {duration(trial.seconds)}"
    )
    whole = _ended(counts)
    lengths = sorted({sim.n_steps for sim in whole if sim.n_steps is not None})
    each = f", {' or '.join(map(str, lengths))} steps each" if lengths else ""
    yield f"  {len(whole)} of {len(counts.simulations)} simulations ended{each}"
    if desk.starts > 1:
        yield f"  it runs one simulation and exits: started {desk.starts} times"


def _fields(counts: Counts) -> Iterator[str]:
    yield "Fields"
    for index, seen in sorted(counts.fields.items()):
        shape = _shape(counts, index)
        n = 1
        for length in shape:
            n *= length
        dtype = "/".join(sorted(seen.dtypes)) or "unknown"
        width = np.dtype(dtype).itemsize if len(seen.dtypes) == 1 else 0
        what = " x ".join(map(str, shape)) or "one number"
        role = "input, once a simulation" if index in counts.inputs else "every step"
        span = f"from {seen.low:.4g} to {seen.high:.4g}" if seen.low <= seen.high else "none finite"
        yield f"  {counts.name(index)}: {what}, {dtype}, {size(n * width)}, {role}; values {span}"
        parts = len(counts.shapes.get(index, {}))
        problems = counts.layout(index)
        owned = "every value comes from one rank" if not problems else "; ".join(problems)
        yield f"    {parts} rank(s): {owned}"
        if seen.low == seen.high and not seen.not_finite:
            yield "    all its values in all steps are the same number; is it the right array?"


def _times(trial: Trial, steps: list[float]) -> Iterator[str]:
    counts = trial.counts
    whole = _ended(counts)
    yield "Time"
    yield (
        f"  a step: {duration(statistics.median(steps))} (median of {number(len(steps))}; the "
        f"slowest {duration(max(steps))})"
    )
    firsts = [s.done_s[0] - s.assigned_s for s in counts.simulations.values() if s.done_s]
    yield f"  the first step of a simulation comes after {duration(statistics.median(firsts))}"
    if trial.desk.n_parts > 1:
        spreads = [spread for s in counts.simulations.values() for spread in s.spread_s]
        yield f"  the ranks send a step within {duration(statistics.median(spreads))} (median)"
    if whole:
        lasted = statistics.mean((s.ended_s or 0.0) - s.assigned_s for s in whole)
        yield f"  a simulation: {duration(lasted)}"
    working = sum((s.ended_s or 0.0) - s.assigned_s for s in whole)
    if working > 0:
        yield f"  blocked while sending: {_blocked(trial, whole, working)} of the time"
    per_step = [s.n_bytes / len(s.done_s) for s in counts.simulations.values() if s.done_s]
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
        if s.first_part_s is not None and s.first_open_s is not None and not s.has_inputs
    )
    largest = max(s.n_bytes / s.n_parts for s in whole)
    if largest < trial.window_bytes:
        return percent(waited_s / working_s)
    return f"at most {percent(min(1.0, (waited_s + trial.busy_s) / working_s))}"


def _workers(
    trial: Trial, steps: list[float], campaign: Campaign | None, draws_per_s: float
) -> Iterator[str]:
    whole = [s for s in _ended(trial.counts) if s.done_s]
    lasted = sum((s.ended_s or 0.0) - s.assigned_s for s in whole)
    per_s = sum(len(s.done_s) for s in whole) / lasted if lasted else 1 / statistics.median(steps)
    ratio = campaign.reservoir.draws_per_sample if campaign else RATIO
    n, wanted = useful_workers(per_s, draws_per_s, ratio)
    yield "Useful number of workers"
    yield (
        f"  one worker here brings {number(per_s)} steps per second; training at "
        f"{number(draws_per_s)} draws per second (--draws-per-second), {ratio or 1:g} a sample, "
        f"takes {number(wanted)}"
    )
    cores = len(os.sched_getaffinity(0))
    processes = n * trial.desk.n_parts
    room = "" if processes <= cores else f"; this machine has {cores}"
    yield f"  {n} worker(s) keep it busy: {processes} processes, a core each{room}"


def proposal(trial: Trial) -> list[str]:
    """[solver] and [fields] of a campaign file for this program, as TOML."""
    counts = trial.counts
    lengths = {sim.n_steps for sim in _ended(counts) if sim.n_steps}
    command = without_mpirun(trial.command)
    quoted = ", ".join('"' + a.replace("\\", "\\\\").replace('"', '\\"') + '"' for a in command)
    lines = ["[solver]", f"command = [{quoted}]", f"mpi_ranks = {max(1, trial.desk.n_parts)}"]
    if len(lengths) == 1:
        lines.append(f"steps = {lengths.pop()}")
    else:
        longest = max([1, *(len(s.done_s) for s in counts.simulations.values())])
        lines.append(f"max_steps = {longest}  # the most that came; no simulation may have more")
    for index in sorted(counts.fields):
        shape = _shape(counts, index)
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


def _shape(counts: Counts, index: int) -> tuple[int, ...]:
    return next(iter(counts.shapes.get(index, {}).values()), ())
