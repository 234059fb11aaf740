"""`penstock audit`: whether a run kept the delivery contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import FAILED, say, told
from penstock_server.commands.options import Runs, earlier_run

CANNOT = 2


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="Whether a run lost anything, or has it twice.")(audit)


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or id.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything as JSON, for scripts.")
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Hold what clients, shards and the trainer counted, each by itself, against each other.

    \b
    Examples:
      penstock audit runs/heat/20260101-120000-abcd
      penstock audit runs/heat/20260101-120000-abcd --json

    Every requested simulation is completed, partial or failed by name; every step of a completed
    one was admitted once, and trained on or is named untrained_by_budget; held-out simulations
    were never trained on. `[audit] checksums = true` in the campaign lets it also see what was
    admitted twice, and compare contents. The run stays as it is.

    \b
    Exit codes: 0 nothing is wrong, 1 something is, 2 the run cannot be audited.
    """
    with told():
        folder = Path(run) if Path(run).is_dir() else earlier_run(run, runs)
        from penstock_server.audit import AuditError, printing, read_tables
        from penstock_server.audit import audit as judge

        try:
            found = judge(read_tables(folder))
        except AuditError as error:
            say(str(error))
            raise typer.Exit(CANNOT) from None
        if as_json:
            typer.echo(json.dumps(printing.to_json(found, folder.resolve().name), indent=1))
        else:
            console = Console()
            console.print(printing.counts_table(found))
            for line in printing.check_lines(found):
                console.print(line, soft_wrap=True)
            for text in printing.finding_lines(found):
                console.print(Text(text, "" if text.startswith(" ") else "bold"), soft_wrap=True)
            console.print(Text(found.sentence, "green" if found.clean else "red"), soft_wrap=True)
        if not found.clean:
            raise typer.Exit(FAILED)
