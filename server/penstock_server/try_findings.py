"""What keeps a program from serving a campaign, as sentences; pure, called by `penstock try`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from penstock_server.config import Campaign
from penstock_server.figures import clock_time, duration
from penstock_server.try_counts import Counts, SimulationSeen
from penstock_server.try_desk import Desk


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
    grace_s: float = 0.0  # it was waited for so long before it was ended
    logs: str = ""


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
        which = f"Simulation {sim.simulation}"
        if sim.outcome in ("failed", "refused"):
            found.append(f"{which} {sim.outcome}: {sim.reason}.{_advice(sim.reason)}")
        if sim.twice:
            found.append(f"{which} sent {sim.twice} parts twice.")
        if sim.ended_s is not None and sim.open_steps:
            step, (parts, _) = next(iter(sim.open_steps.items()))
            missing = sorted(set(range(sim.n_parts)) - parts)
            found.append(
                f"{which}: step {step} came without rank {', '.join(map(str, missing))}. Every "
                "rank sends its part of every step."
            )
        if any(b <= a for a, b in pairwise(sim.t)):
            found.append(f"{which}: the time t does not grow from step to step.")
        if campaign is not None and sim.n_steps is not None and sim.outcome == "ended":
            found += _steps_differ(sim, campaign)
    if desk.n_ranks > 1 and campaign is not None and campaign.solver.mpi_ranks != desk.n_ranks:
        found.append(
            f"The program ran on {desk.n_ranks} MPI ranks, the campaign says mpi_ranks = "
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
    elif trial.time_over and not trial.counts.whole:
        yield "The time was over before a simulation had ended; give it more with --seconds."
    if trial.had_to_be_ended:
        yield (
            f"The program went on for {clock_time(trial.grace_s)} after it was told that there are "
            "no more simulations, and was ended."
        )


def _last_lines(text: str, n: int = 12) -> str:
    return "".join(f"\n    {row}" for row in text.strip().splitlines()[-n:])


def _advice(reason: str) -> str:
    missing = re.search(r"KeyError: '(\w+)'", reason)
    if missing is None:
        return ""
    return f" If that is a parameter of yours, give it: --parameter {missing[1]}=LOW:HIGH."
