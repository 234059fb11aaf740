"""The command line: `penstock COMMAND`; the commands themselves are in `commands/`.

`penstock.command` calls `main`. Torch and Ray are imported by the commands that need them, so that
--help and check stay quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_server.commands import audit, compare, data, model, replay, report, run, solver

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # [fields] in a text is no markup
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> int:
    """Runs the command line of this process; gives the exit code."""
    try:
        app()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.callback(invoke_without_command=True)
def penstock(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Trains neural surrogates of numerical solvers while the solvers run.

    \b
    Start with:
      penstock doctor                    what this machine has, and what is missing
      penstock demo                      a heat solver trains a network, in minutes
      penstock try -- mpirun -n 2 ./solver   what a program of yours sends
      penstock wrap -- ./solver input.in     a worker around a program that cannot be changed
      penstock check campaign.toml       what a campaign costs, before it starts
      penstock run campaign.toml         production and training in one go
      penstock compare campaign.toml     online against offline training
      penstock report RUN                errors, pictures and costs in one HTML file
      penstock audit RUN                 whether anything was lost, or is there twice
      penstock predict RUN --params T0=300   ask the trained network
      penstock opponents RUN --vary n=8,16   hold it against coarser solvers
      penstock rerun RUN 17              one simulation once more, alone
      penstock replay RUN                the same batches once more, bit by bit

    Each command says more with --help.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"penstock {installed('penstock')}")


for group in (run, model, solver, compare, report, audit, replay, data):
    group.add(app)
