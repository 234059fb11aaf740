"""`penstock compare`: online against offline training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.commands.errors import told
from penstock_server.commands.options import CampaignFile, Overrides
from penstock_server.config import load


def add(app: typer.Typer) -> None:
    """Puts the commands of this file on the command line."""
    app.command(short_help="Online against offline training.")(compare)


def compare(
    campaign: CampaignFile,
    arms: Annotated[
        str,
        typer.Option(
            metavar="ARM,..", help="online, offline-small, offline-all, or offline-N with N stored."
        ),
    ] = "online,offline-small,offline-all",
    seeds: Annotated[
        int, typer.Option(min=1, help="How many; each redraws simulations, weights and order.")
    ] = 5,
    small: Annotated[int, typer.Option(min=1, help="Simulations of offline-small.")] = 100,
    tune: Annotated[
        bool,
        typer.Option(
            help="2 schedules x 3 weight decays x last or best network on the first seed, chosen "
            "by validation error for each arm."
        ),
    ] = True,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the comparison; default comparisons/NAME.", show_default=False
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Offline runs at the same time; their times suffer."),
    ] = 1,
    bar: Annotated[
        float, typer.Option(min=0, help="The MSE ratio that a verdict of `bar met` needs.")
    ] = 0.32,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Keep the stored simulations of finished seeds.")
    ] = False,
) -> None:
    """Train the same network online and offline, on the same simulations, and compare.

    \b
    Examples:
      penstock compare campaign.toml --seeds 5
      penstock compare campaign.toml --arms online,offline-25,offline-100,offline-all --no-tune

    Every arm trains the same number of batches. An online run of each seed stores the simulations,
    and the offline arms train on them or on the first N; initialisation and normalisation are the
    same in all arms. The figures are on test simulations, which nobody sees before the settings
    are chosen. Ends with tables, comparison.md, comparison.png and result.json in the folder.

    Ctrl-C stops it; the same command goes on and repeats only the run that was under way. More
    --seeds may be asked for later; any other change needs another folder.

    \b
    Exit codes: 0 compared, 1 it cannot be, 2 the campaign file is wrong, 130 stopped with Ctrl-C.
    """
    with told():
        from penstock_server.compare.arms import parse_arms

        chosen = load(campaign, overrides or ())
        parsed = parse_arms(arms, small, chosen.design.simulations)
        from penstock_server import compare as comparing
        from penstock_server.compare import output, report

        console = Console()
        study = comparing.Study(
            comparing.Comparison(
                chosen,
                parsed,
                seeds,
                tune,
                out or Path("comparisons") / chosen.name,
                jobs,
                keep_data,
            ),
            comparing.ProcessRunner(),
            comparing.StoredScores(),
            lambda text: console.print(Text(text), soft_wrap=True),
        )
        study.run()
        result = output.write(study, bar)
        for table in report.tables(result):
            console.print(table)
        for note in report.notes(result):
            console.print(Text(note, "bright_black"), soft_wrap=True)
        for name in (output.TABLE, output.FIGURE, output.RESULT):
            console.print(Text(str(study.records.folder / name)), soft_wrap=True)
