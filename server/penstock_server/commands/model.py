"""`penstock predict | opponents`: the trained network asked, and held against its solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import say, told
from penstock_server.commands.options import Runs, earlier_run


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="Ask a trained network for fields.")(predict)
    app.command(short_help="Hold a network against coarser solvers.")(opponents)


def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder or id, or a model's folder.")
    ],
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params",
            metavar="NAME=VALUE,..",
            help="One set of parameters, in their units; more --params add to it.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Many sets: a header of names, one set a line.", show_default=False
        ),
    ] = None,
    t: Annotated[
        str | None,
        typer.Option("--t", metavar="T,..", help="The times.", show_default=False),
    ] = None,
    times: Annotated[
        int, typer.Option(min=2, help="Without --t: so many, evenly over the trained range.")
    ] = 5,
    out: Annotated[Path, typer.Option(help="The folder that the files go to.")] = Path(
        "prediction"
    ),
    runs: Runs = Path("runs"),
) -> None:
    """Predict fields with the network of a run, and write them to HDF5 and VTU with a picture.

    \b
    Examples:
      penstock predict runs/demo/ID --params T0=300,T1=400,T2=200,T3=350,T4=150
      penstock predict runs/demo/ID --csv points.csv --t 0.1,0.5,1 --out fields

    Warns where a value lies outside the box that the network was trained in. prediction.h5 has
    all fields; the .vtu files, one a set of parameters and time, open in ParaView on a uniform grid
    over the unit box, because a campaign knows shapes and no coordinates.

    \b
    Exit codes: 0 predicted, 1 it cannot be, 2 there is no such run.
    """
    with told():
        from penstock_server import predict as asking

        if (params is None) == (table is None):
            raise asking.PredictError("Give either --params NAME=VALUE,.. or --csv FILE.")
        folder = Path(run)
        surrogate = asking.open_model(folder if folder.is_dir() else earlier_run(run, runs))
        names = surrogate.problem.parameter_names
        given = (
            asking.read_parameters(table, names)
            if table is not None
            else asking.parse_parameters(params or (), names)
        )
        chosen = asking.parse_times(t) if t is not None else None
        prediction = asking.predict(surrogate, given, chosen, times)
        for warning in prediction.warnings:
            say(warning)
        console = Console()
        for line in asking.describe(prediction, asking.write(prediction, out)):
            console.print(Text(line), soft_wrap=True)


def opponents(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or id.")],
    vary: Annotated[
        str,
        typer.Option(
            metavar="OPTION=V,..",
            help="The solver's option that sets its grid, and coarser values: n=8,16,32.",
            show_default=False,
        ),
    ],
    simulations: Annotated[
        int, typer.Option(min=1, help="So many held-out simulations at the most.")
    ] = 8,
    runs: Runs = Path("runs"),
) -> None:
    """Hold a run's network against its solver, and against the solver on coarser grids.

    \b
    Example:
      penstock opponents runs/heat/20260101-120000-abcd --vary n=8,12,16,32

    "Times faster" is said against the coarsest solver whose error is no larger than the network's.
    Held-out simulations are solved again on each grid, coarse fields are interpolated to the fine
    one; axes of the fields that are as long as the option's value follow it. What was found goes
    into RUN/opponents.json, and from there into the report.
    """
    with told():
        from penstock_server import opponents as opposing

        console = Console()
        result = opposing.opponents(
            earlier_run(run, runs),
            opposing.Vary.parse(vary),
            simulations,
            lambda text: console.print(Text(text), soft_wrap=True),
        )
        for line in opposing.describe(result):
            console.print(Text(line), soft_wrap=True)
