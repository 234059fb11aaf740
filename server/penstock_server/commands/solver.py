"""`penstock try | rerun | doctor`: a solver alone, and what this machine has for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock_server.commands.errors import told
from penstock_server.commands.options import DrawsPerSecond, Overrides, Runs, earlier_run
from penstock_server.config import load


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(
        "try",
        short_help="What a program of yours sends.",
        context_settings={"allow_interspersed_args": False},
    )(try_)
    app.command(short_help="Repeat one simulation of a run, alone.")(rerun)
    app.command(short_help="What this machine has and lacks.")(doctor)


def try_(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND...",
            help="The program and its arguments. {python} in it is the interpreter with DOLFINx.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="End the trial after so long.")] = 60.0,
    simulations: Annotated[int, typer.Option(min=1, help="How many to hand out.")] = 2,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH",
            help="A parameter that the program looks for, drawn from a range; repeatable.",
            show_default=False,
        ),
    ] = None,
    campaign: Annotated[
        Path | None,
        typer.Option(help="Compare with this campaign file, and take its inputs and command."),
    ] = None,
    overrides: Overrides = None,
    draws_per_second: DrawsPerSecond = None,
) -> None:
    """Run a program against a server that counts, to see what a campaign would get from it.

    \b
    Examples:
      penstock try -- mpirun -n 4 ./solver --size 64
      penstock try --parameter nu=0.01:0.1 -- python3 solver.py
      penstock try --campaign campaign.toml

    The program needs the few lines of the client (import penstock), and no campaign file: its
    fields, global shapes, parts, ghosts and missing values, time per step, bytes and NaNs are
    found out, and a [fields] section for the campaign file is proposed, with the useful number of
    workers.

    Exit code 0 if a campaign can take the program as it is.
    """
    with told():
        from penstock_server.try_solver import try_solver

        code = try_solver(
            command or (),
            Console(),
            campaign=load(campaign, overrides or ()) if campaign is not None else None,
            parameters=parameter or (),
            simulations=simulations,
            seconds=seconds,
            draws_per_s=draws_per_second,
        )
        raise typer.Exit(code)


def rerun(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or id.")],
    simulation: Annotated[int, typer.Argument(metavar="SIM", min=0, help="The simulation's id.")],
    seconds: Annotated[float, typer.Option(min=1, help="End it after so long.")] = 3600.0,
    runs: Runs = Path("runs"),
) -> None:
    """Repeat one simulation of a run alone, with the same inputs, seed and command.

    \b
    Example:
      penstock rerun runs/heat/20260101-120000-abcd 17

    Says what the simulation sent this time, what a campaign would refuse of it, and the end of its
    standard error if something is wrong. Nothing is trained, and the run stays as it is.

    Exit code 0 if a campaign would take the simulation.
    """
    with told():
        from penstock_server.rerun import rerun as repeat

        folder = earlier_run(run, runs)
        raise typer.Exit(repeat(folder, simulation, Console(), seconds))


def doctor() -> None:
    """Say what this machine has for Penstock, what is missing and how to get it.

    \b
    Example:
      penstock doctor

    Exit code 0 if `penstock run` works here, at least with numpy solvers.
    """
    with told():
        from penstock_server.doctor import doctor as examine

        raise typer.Exit(examine())
