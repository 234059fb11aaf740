"""What became of the simulations, and of the inputs that were designed; for `writing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from penstock_server import figures
from penstock_server.pictures.report_design import MOST, Axis, Cloud, draw_design
from penstock_server.report.blocks import Block, Missing, Picture, Section, Table, Text
from penstock_server.report.files import at, entries, number, table
from penstock_server.report.numbers import measured
from penstock_server.report.points import Point
from penstock_server.report.reading import Run

STATES = {
    "requested": "requested",
    "completed": "completed",
    "retried": "tried again",
    "failed": "given up",
    "quarantined": "refused at the door, for their values",
    "partial": "partial",
    "running": "still running at the end",
    "queued": "never started",
}
SHOWN_FAULTS = 100
OTHER = "not run"
# Training points by state, in the order of the legend: label, marker, colour.
MARKS: Mapping[str, tuple[str, str, str | int]] = {
    "completed": ("training, completed", "o", "network"),
    "partial": ("partial", "s", 3),
    "quarantined": ("quarantined", "^", 4),
    "failed": ("failed", "X", "bad"),
    OTHER: ("not run", "d", "faint"),
}


def losses_section(run: Run) -> Section:
    """Counts, faults by name, and what can be done about each."""
    simulations = table(run.summary, "simulations")
    rows = [
        (STATES.get(name, name), figures.number(number(simulations, name) or 0.0))
        for name in [*STATES, *(n for n in simulations if n not in STATES)]
        if name in simulations
    ]
    blocks: list[Block] = [Table("Simulations", ("", "number"), rows)]
    blocks += _by_role(run.points)
    blocks.append(Text(f"Audit (penstock audit RUN): {run.audit}"))
    faults = entries(run.summary, "faults")
    if not faults:
        blocks.append(Text("No fault was reported."))
        return Section("What was lost", blocks)
    shown = [
        (
            str(fault.get("simulation", fault.get("process", "unknown"))),
            str(fault.get("attempt", "")),
            str(fault.get("message") or fault.get("why") or fault.get("what") or ""),
            str(fault.get("outcome") or ""),
            str(fault.get("next_command") or ""),
        )
        for fault in faults[:SHOWN_FAULTS]
    ]
    left = len(faults) - len(shown)
    blocks.append(
        Table(
            f"Faults, the first {len(shown)} of {len(faults)}" if left else "Faults",
            ("simulation", "attempt", "message", "what became of it", "to see it again"),
            shown,
            n_text=5,
        )
    )
    return Section("What was lost", blocks)


def _by_role(points: tuple[Point, ...] | None) -> list[Block]:
    if not points:
        return [Missing("coordinator.sqlite is missing, so simulations are known by count only.")]
    counted = Counter((point.role, point.state) for point in points)
    states = sorted({state for _, state in counted})
    rows = [
        (role, *(figures.number(counted[role, state]) for state in states))
        for role in ("train", "validation", "test")
        if any(counted[role, state] for state in states)
    ]
    return [Table("By role", ("role", *states), rows)]


def inputs_section(run: Run) -> Section:
    """The designed points by pairs of parameters, and what was drawn of them."""
    title = "Inputs: designed and drawn"
    blocks: list[Block] = []
    axes = design_axes(run)
    if not axes:
        blocks.append(Text("The simulations have no scalar inputs."))
    elif not run.points:
        blocks.append(
            Missing("coordinator.sqlite is missing, so the designed inputs are not known.")
        )
    else:
        clouds = point_clouds(run.points, [axis.name for axis in axes])
        kinds = ", ".join(f"{len(cloud.values):,} {cloud.label}" for cloud in clouds)
        text = f"Designed inputs by pairs of parameters: {kinds}."
        if len(axes) > MOST:
            text += f" The first {MOST} of {len(axes)} parameters are shown."
        blocks.append(Picture(draw_design(axes, clouds), text, text))
    blocks += drawn_table(run)
    return Section(title, blocks)


def design_axes(run: Run) -> list[Axis]:
    axes = []
    for name, spec in table(run.campaign, "design", "parameters").items():
        choices = at(spec, "choices") or ()
        low = min(choices) if choices else number(spec, "low") or 0.0
        high = max(choices) if choices else number(spec, "high") or 0.0
        logarithmic = at(spec, "distribution") == "log-uniform" and low > 0
        axes.append(Axis(name, float(low), float(high), logarithmic))
    return axes


def point_clouds(points: tuple[Point, ...], names: list[str]) -> list[Cloud]:
    """Training points by what became of them, held-out ones by role; what failed is on top."""

    def values(chosen: list[Point]) -> np.ndarray:
        return np.array([[p.parameters.get(name, np.nan) for name in names] for p in chosen])

    ran = set(MARKS) - {OTHER}
    state = {p.simulation: p.state if p.state in ran else OTHER for p in points}
    clouds = []
    for name, (label, marker, colour) in MARKS.items():
        wanted = [
            p
            for p in points
            if state[p.simulation] == name and (p.role == "train" or name != "completed")
        ]
        if wanted:
            clouds.append(Cloud(label, values(wanted), marker, colour))
    for role, colour in (("validation", "linear"), ("test", "best")):
        held_out = [p for p in points if p.role == role and p.state == "completed"]
        if held_out:
            clouds.append(Cloud(role, values(held_out), "o", colour, hollow=True))
    return clouds


def drawn_table(run: Run) -> list[Block]:
    """Mean and spread of the samples in the batches beside those of the design."""
    drawn = run.drawn
    if drawn is None:
        return [
            Missing("drawn.json is missing, so what was drawn cannot be compared with the design.")
        ]
    rows = []
    for name in at(drawn, "names") or list(table(drawn, "design")):
        design, own = table(drawn, "design", name), table(drawn, "drawn", name)
        mean, spread = number(design, "mean"), number(design, "std")
        shift = number(own, "mean")
        moved = (
            f"{(shift - mean) / spread:+.3f}"
            if shift is not None and mean is not None and spread
            else "unknown"
        )
        rows.append((name, *_moments(design), *_moments(own), moved))
    after = number(drawn, "after_batches")
    until = f" after {int(after):,} batches" if after is not None else ""
    header = (
        "parameter",
        "design: mean",
        "std",
        "drawn: mean",
        "std",
        "shift of the mean, in std of the design",
    )
    return [Table(f"Inputs of what training drew{until}, beside the design's", header, rows)]


def _moments(values: Mapping[str, object]) -> tuple[str, str]:
    return measured(number(values, "mean")), measured(number(values, "std"))
