"""`penstock rerun RUN SIM`: one simulation of a run once more, alone, and what it sends.

The same inputs and seed go to the same command, against the counting server of `penstock try`.
"""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from penstock_server.config import Campaign, load
from penstock_server.coordinator.records import Simulation
from penstock_server.coordinator.store import Store
from penstock_server.figures import duration
from penstock_server.try_desk import Work
from penstock_server.try_findings import Trial, findings
from penstock_server.try_solver import program, run


class RerunError(RuntimeError):
    """The simulation cannot be repeated; the text says why and what to do."""


def rerun(folder: Path, number: int, console: Console, seconds: float) -> int:
    """Repeats the simulation and prints what came; 0 if a campaign would take it.

    Raises RerunError, CampaignError or SolverError.
    """
    campaign = load(folder / "campaign.toml")
    simulation = find(folder / "coordinator.sqlite", number)
    argv, environment = program((), campaign)
    for line in (*describe(simulation), f"Running {shlex.join(argv)}"):
        console.print(Text(line), soft_wrap=True)
    logs = Path(tempfile.mkdtemp(prefix="penstock-rerun-"))
    problems: list[str] = []
    try:
        trial = run(
            argv,
            argv,
            environment,
            Work((simulation.parameters,), simulation.seed, simulation.id, simulation.role),
            campaign,
            seconds,
            logs,
        )
        problems = findings(trial, campaign)
        for line in outcome(trial, campaign):
            console.print(Text(line), soft_wrap=True)
        for problem in problems:
            console.print(Text(problem, "red"), soft_wrap=True)
        if problems and trial.desk.stderr_tail.strip():
            console.print(Text(f"The end of its standard error:\n{trial.desk.stderr_tail.strip()}"))
    finally:
        if not problems:
            shutil.rmtree(logs, ignore_errors=True)
    if problems:
        console.print(Text(f"Its logs are in {logs}."), soft_wrap=True)
    return 1 if problems else 0


def find(database: Path, number: int) -> Simulation:
    """The simulation as the run's books have it. Raises RerunError."""
    if not database.is_file():
        raise RerunError(
            f"The run {database.parent} has no {database.name}, so its simulations are not known: "
            "it ended before the coordinator began."
        )
    try:
        store = Store(database)
        try:
            found = store.read(Simulation, "id = ?", number)
            ids = [s.id for s in store.read(Simulation)]
        finally:
            store.close()
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise RerunError(f"{database} cannot be read: {error}.") from error
    if not found:
        known = f"they are {ids[0]} to {ids[-1]}" if ids else "it has none"
        raise RerunError(f"The run {database.parent} has no simulation {number}; {known}.")
    return found[0]


def describe(simulation: Simulation) -> list[str]:
    """Which one it is, and what became of it in the run."""
    attempts = f"{simulation.attempts} attempt{'' if simulation.attempts == 1 else 's'}"
    why = f": {simulation.reason}" if simulation.reason else ""
    values = ", ".join(f"{name} = {value:.6g}" for name, value in simulation.parameters.items())
    return [
        f"Simulation {simulation.id} ({simulation.role}): {simulation.state} after {attempts}{why}",
        f"  seed {simulation.seed}" + (f"; {values}" if values else ""),
    ]


def outcome(trial: Trial, campaign: Campaign) -> list[str]:
    """What it sent this time."""
    lines = []
    for seen in trial.counts.simulations.values():
        lines.append(
            f"It {seen.outcome} after {duration(trial.seconds)}, with {len(seen.complete)} whole "
            f"steps of {campaign.steps_sent} sent."
        )
    for index in sorted(trial.counts.fields):
        name, field = trial.counts.name(index), trial.counts.seen(index)
        if field.n_bytes and name in campaign.fields:
            unit = f" {campaign.fields[name].unit}".rstrip()
            lines.append(f"  {name}: {field.low:.6g} to {field.high:.6g}{unit}")
    return lines
