"""`penstock fill`: stored simulations streamed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import told


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="Stream a stored data set, as a worker.")(fill)


def fill(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A data.h5, or the folder of its run."),
    ],
    pause_ms: Annotated[
        float,
        typer.Option(min=0, help="Sleep so long before each step."),
    ] = 0.0,
) -> None:
    """Stream stored simulations into a campaign, as if a solver had just computed them.

    \b
    It is a worker: a campaign starts it in the place of its solver.
      penstock run campaign.toml --set 'solver.command=["{server}","-m","penstock","fill","DATA"]'
      {server} is the interpreter that Penstock itself runs in.

    Simulations are found by their parameters, to the bit; one that the data set lacks fails by
    name. `keep` in the campaign file, mode = "store" and mode = "offline" write data sets.
    """
    with told():
        from penstock_server.fill import fill as stream

        n = stream(data, pause_ms / 1000)
        Console().print(Text(f"{n} simulations of {data} were streamed."), soft_wrap=True)
