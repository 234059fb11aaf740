"""From run folders to the HTML file; `commands/report.py` calls `write_report`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path

from penstock_server.report.blocks import Page
from penstock_server.report.campaign_section import campaign_section
from penstock_server.report.cost_sections import data_section, opponents_section
from penstock_server.report.error_sections import (
    distribution_section,
    errors_section,
    training_section,
)
from penstock_server.report.example_section import example_section
from penstock_server.report.files import ReportError
from penstock_server.report.opening import cards, subtitle, verdict
from penstock_server.report.page import render
from penstock_server.report.reading import Run, read_run
from penstock_server.report.side_by_side import compare
from penstock_server.report.simulation_sections import inputs_section, losses_section
from penstock_server.report.time_section import time_section
from penstock_server.report.use_section import use_section


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """One run's report, or several runs side by side; gives the file. Raises ReportError."""
    runs = [read_run(folder) for folder in folders]
    target = out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    part = target.with_name(f"{target.name}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:  # before seconds of drawing
            file.write(render(one(runs[0]) if len(runs) == 1 else compare(runs)))
        part.replace(target)
    except OSError as error:
        raise ReportError(
            f"The report cannot be written to {target}: {error.strerror}. Choose another place "
            "with --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return target


def one(run: Run) -> Page:
    """The page of a single run."""
    return Page(
        title=run.name,
        subtitle=subtitle(run),
        verdict=verdict(run),
        cards=cards(run),
        sections=[
            errors_section(run),
            example_section(run),
            distribution_section(run),
            training_section(run),
            opponents_section(run),
            inputs_section(run),
            losses_section(run),
            time_section(run),
            data_section(run),
            campaign_section(run),
            use_section(run),
        ],
    )
