"""`penstock try -- COMMAND`: runs any program against a counting server and says what it sends.

`try_solver`, called by the command line, starts the program through an agent, as a campaign would,
and talks to it; what is said of it is made in `try_findings` and `try_report`.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from penstock_server.config import Campaign
from penstock_server.figures import clock_time
from penstock_server.interpreters import (
    SolverError,
    find_interpreter,
    solver_command,
    solver_environment,
)
from penstock_server.launch import Agency, LocalLauncher
from penstock_server.try_counts import Counts
from penstock_server.try_desk import Desk, Work
from penstock_server.try_findings import Trial, findings
from penstock_server.try_report import report
from penstock_server.try_server import CountingServer

GRACE_S = 10.0  # for a program to end by itself when there are no more simulations


class TryError(ValueError):
    """What was asked of `penstock try` makes no sense; the text says what would."""


def try_solver(
    command: Sequence[str],
    console: Console,
    *,
    campaign: Campaign | None = None,
    parameters: Sequence[str] = (),
    simulations: int = 2,
    seconds: float = 60.0,
    draws_per_s: float | None = None,
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
        work = Work(tuple(points))
        trial = run(command or argv, argv, environment, work, campaign, seconds, logs)
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
    work: Work,
    campaign: Campaign | None,
    seconds: float,
    logs: Path,
) -> Trial:
    """Starts the program and counts until it ends or the time is over; ends it in any case."""
    counts = Counts(list(campaign.fields) if campaign else ())
    server = CountingServer(counts)
    welcome = server.welcome(campaign)
    desk = Desk(counts, welcome, work)
    launcher = LocalLauncher(
        Agency(
            coordinator=server.address,
            command=tuple(argv),
            log_dir=logs,
            python=sys.executable,
            environment={**environment, "PENSTOCK_KEYS": ""},  # the shell's is of a campaign
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
        grace_s=GRACE_S,
        logs=str(logs),
    )
