"""`penstock run | check | demo`: campaigns on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import FAILED, say, told
from penstock_server.commands.options import (
    CampaignFile,
    DrawsPerSecond,
    Overrides,
    Plain,
    Quiet,
    Runs,
    earlier_run,
)
from penstock_server.config import Campaign, CampaignError, load

if TYPE_CHECKING:
    from penstock_server.supervisor import Outcome


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="Run a campaign.")(run)
    app.command(short_help="What a campaign costs, before it starts.")(check)
    app.command(short_help="A heat solver trains a network.")(demo)


def run(
    campaign: Annotated[
        Path | None,
        typer.Argument(metavar="CAMPAIGN", help="The campaign file, TOML.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with an earlier run: its folder, or its id.",
            show_default=False,
        ),
    ] = None,
    plain: Plain = False,
    quiet: Quiet = False,
) -> None:
    """Run a campaign: solvers, stream, training and validation, to the end.

    \b
    Examples:
      penstock run campaign.toml
      penstock run campaign.toml --set training.ranks=2 --set design.simulations=50
      penstock run --resume runs/heat/20260101-120000-abcd

    Everything that a run leaves is in RUNS/NAME/ID: the resolved campaign, summary.json,
    history.csv, the model, pictures, checkpoints, logs. Ctrl-C stops it in order; --resume goes on
    from its newest checkpoint.

    \b
    Exit codes: 0 completed, 1 failed, 2 the campaign file is wrong, 130 stopped with Ctrl-C.
    """
    with told():
        folder = earlier_run(resume, runs) if resume is not None else None
        chosen = load(_campaign_file(campaign, folder), overrides or ())
        outcome = attend(chosen, runs, folder, plain, quiet)
        from penstock_server.demo import show_end

        show_end(Console(), outcome.summary, outcome.folder)
        if not outcome.ok:
            say(f"The run did not complete; its logs are in {outcome.folder / 'logs'}.")
            raise typer.Exit(FAILED)


def check(
    campaign: CampaignFile,
    overrides: Overrides = None,
    draws_per_second: DrawsPerSecond = None,
) -> None:
    """Check a campaign file, say what it costs and what would be started; start nothing.

    \b
    Examples:
      penstock check campaign.toml
      penstock check campaign.toml --set reservoir.capacity=20000

    Refuses a campaign whose reservoir or processes do not fit into this machine, with the
    arithmetic. The useful number of workers needs the time of a step: `penstock try` measures it.
    server/CAMPAIGN.md in the repository says what each key of the file means.

    \b
    Exit codes: 0 it can run here, 1 it cannot, 2 the campaign file is wrong.
    """
    with told():
        from penstock_server import check_report

        chosen = load(campaign, overrides or ())
        machine = check_report.examine(chosen)
        console = Console()
        console.print(Text(f"{campaign}: the campaign {chosen.name} is valid.", "green"))
        for text in check_report.report(chosen, machine, draws_per_second):
            console.print(Text(text, "" if text.startswith(" ") else "bold"), soft_wrap=True)
        refusals = check_report.refusals(chosen, machine)
        for refusal in refusals:
            say(refusal)
        if refusals:
            raise typer.Exit(FAILED)


def demo(
    numpy: Annotated[
        bool, typer.Option("--numpy", help="The numpy solver, also where FEniCSx is there.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the simulations; a larger error.")
    ] = False,
    runs: Runs = Path("runs"),
    plain: Plain = False,
    quiet: Quiet = False,
) -> None:
    """Solve the heat equation 216 times and train a network on it meanwhile.

    \b
    Examples:
      penstock demo
      penstock demo --numpy --quick

    Uses FEniCSx under MPI if this machine has both, else a numpy solver, and says why. Ends with
    the network's validation error beside those of the best constant and of a linear emulator, and
    with a picture; exit code 0 only if the network beats the constant.
    """
    with told():
        from penstock_server.demo import demo as show_off

        code = show_off(
            lambda chosen: attend(chosen, runs, None, plain, quiet),
            Console(),
            numpy=numpy,
            quick=quick,
        )
        raise typer.Exit(code)


def attend(
    campaign: Campaign, runs: Path, resume: Path | None, plain: bool, quiet: bool
) -> Outcome:
    """Runs a campaign and shows it meanwhile."""
    from penstock_server.check_report import shared_refusal
    from penstock_server.display import Display
    from penstock_server.interpreters import SolverError, solver_command

    if campaign.produces:
        solver_command(campaign)  # before torch and Ray are loaded
    refusal = shared_refusal(campaign)
    if refusal is not None:
        raise SolverError(refusal)
    console = Console()
    shown = Display(console, plain=plain, quiet=quiet, planned_batches=campaign.planned_batches)
    try:
        with shown:
            shown.on_message(
                f"Starting {campaign.name}; its files are below {runs / campaign.name}."
            )
            from penstock_server.supervisor import run_campaign  # seconds: torch and Ray

            return run_campaign(
                campaign,
                runs,
                resume=resume,
                on_status=shown.on_status,
                on_message=shown.on_message,
            )
    except KeyboardInterrupt:
        known = sorted((runs / campaign.name).glob("*/campaign.toml"))
        if known:
            say(f"To go on with it: penstock run --resume {known[-1].parent}")
        raise


def _campaign_file(campaign: Path | None, folder: Path | None) -> Path:
    if campaign is not None:
        return campaign
    if folder is not None:
        return folder / "campaign.toml"
    raise CampaignError(
        "Give a campaign file, or --resume RUN to go on with a run: penstock run campaign.toml."
    )
