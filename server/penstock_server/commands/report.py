"""`penstock report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import told
from penstock_server.commands.options import Runs, earlier_run


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="A run, or several side by side, as one HTML file.")(report)


def report(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders or ids of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; else RUN/report.html, or ./report.html for several runs.",
            show_default=False,
        ),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write the report of a run: errors beside their opponents, pictures, costs, losses, inputs.

    \b
    Examples:
      penstock report runs/demo/ID
      penstock report runs/demo/ID1 runs/demo/ID2 --out both.html

    One HTML file that opens in any browser without a network; several runs are set side by side
    in it. What a run did not leave is named there, with how to get it.

    \b
    Exit codes: 0 written, 1 a run cannot be read, 2 there is no such run.
    """
    with told():
        folders = [Path(one) if Path(one).is_dir() else earlier_run(one, runs) for one in run]
        from penstock_server.figures import size
        from penstock_server.report import write_report

        path = write_report(folders, out)
        Console().print(Text(f"{path}  {size(path.stat().st_size)}"), soft_wrap=True)
