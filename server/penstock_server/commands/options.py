"""Options that several commands share, and how an earlier run is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock_server.config import CampaignError

CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN", help="The campaign file, TOML.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the campaign file, such as training.ranks=2; repeatable.",
        show_default=False,
    ),
]
Runs = Annotated[Path, typer.Option(help="Where runs are kept: RUNS/NAME/ID.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of the live display.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing until the end.")]
DrawsPerSecond = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="How many samples training draws per second; summary.json of an earlier run has it. "
        "Without it a guess is taken.",
        show_default=False,
    ),
]


def earlier_run(run: str, runs: Path) -> Path:
    """The folder of a run that was given by its path or by its id."""
    candidates = [Path(run), *sorted(runs.glob(f"*/{run}"))]
    found = next((path for path in candidates if (path / "campaign.toml").is_file()), None)
    if found is not None:
        return found
    known = sorted(str(path.parent) for path in runs.glob("*/*/campaign.toml"))
    newest = f" The newest is {known[-1]}." if known else ""
    raise CampaignError(f"There is no run {run} here, nor below {runs}.{newest}")
