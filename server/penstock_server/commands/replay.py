"""`penstock replay`: the batches of an online run once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import FAILED, say, told
from penstock_server.commands.options import Plain, Quiet, Runs, earlier_run
from penstock_server.commands.run import attend

if TYPE_CHECKING:
    from penstock_server.replay import Verdict


def add(app: typer.Typer) -> None:
    """Puts the command of this file on the command line."""
    app.command(short_help="The batches of an online run once more, bit by bit.")(replay)


def replay(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The run: its folder, or its id.", show_default=False),
    ],
    runs: Runs = Path("runs"),
    plain: Plain = False,
    quiet: Quiet = False,
) -> None:
    """Train on the batches of an online run once more, and compare draws and weights.

    \b
    Example:
      penstock replay runs/heat/20260101-120000-abcd

    The solvers compute again what the run drew (if it kept all of its data, these are read), into
    the data set of a new run; then the network is trained on the same samples in the same batches.
    The weights come out with the same bits if the solvers reproduce themselves, on the same kind of
    processor, with the same versions and the same number of ranks. How many workers there were does
    not matter, nor which of them was killed.

    \b
    Exit codes: 0 the same draws and the same weights, 1 others, or the run cannot be replayed.
    """
    with told():
        from penstock_server.replay import judge, read_recording, replayed

        recording = read_recording(earlier_run(run, runs))
        outcome = attend(replayed(recording), runs, None, plain, quiet)
        verdict = judge(recording, outcome.folder)
        for line in lines(verdict):
            Console().print(Text(line), soft_wrap=True)
        if not verdict.ok:
            say(f"{outcome.folder} is not the same training as {recording.folder}.")
            raise typer.Exit(FAILED)


def lines(verdict: Verdict) -> list[str]:
    """What the command says at its end."""
    draws = "the same" if verdict.same_draws else "NOT the same"
    weights = "the same to the bit" if verdict.same_weights else f"off by up to {verdict.worst:.3g}"
    return [
        f"{verdict.samples} draws in {verdict.batches} batches: {draws}, SHA-256 {verdict.digest}",
        f"{verdict.n_weights} weights: {weights}",
    ]
