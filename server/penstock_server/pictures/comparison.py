"""The figure of a comparison: error by seed, error over t, error against stored simulations.

`compare` calls it with what stands in result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from penstock_server.pictures.held_out import DASHES, FAINT, GRID, STYLE

COLOURS = ("#0b62b0", "#c8571b", "#3a8f5c", "#8a5aa8", "#b08a1e", "#5b6b7b")
WIDTH, HEIGHT = 4.2, 3.7  # inches of a panel

Range = tuple[float, float]


@dataclass(frozen=True)
class ArmErrors:
    """Errors of one arm on the test simulations, all nRMSE."""

    name: str
    simulations: int | None  # stored ones; None: streamed
    by_seed: Sequence[float]
    mean: float  # geometric, of by_seed
    interval: Range | None  # None with one seed
    t: Sequence[float]
    over_t: Sequence[float | None]
    tuned: bool = True  # False: an arm with a setting of its own, not part of the third panel


@dataclass(frozen=True)
class Reference:
    """An opponent's mean nRMSE, drawn as a dashed line."""

    name: str
    value: float


def draw_comparison(
    path: Path, arms: Sequence[ArmErrors], references: Sequence[Reference], title: str
) -> None:
    """Write a PNG. The third panel needs two arms with stored simulations."""
    stored = [arm for arm in arms if arm.simulations is not None and arm.tuned]
    n = 3 if len(stored) > 1 else 2
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH * n, HEIGHT), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        panels = [figure.add_subplot(1, n, at + 1) for at in range(n)]
        colours = {arm.name: COLOURS[at % len(COLOURS)] for at, arm in enumerate(arms)}
        _seeds(panels[0], arms, colours)
        _refer(panels[0], references)
        _over_t(panels[1], arms, colours)
        if n > 2:
            _against_stored(panels[2], arms, stored)
            _refer(panels[2], references)
        figure.suptitle(title, fontsize=12, weight="bold", x=0.01, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        figure.savefig(part, format="png")
        part.replace(path)


def _seeds(panel: Axes, arms: Sequence[ArmErrors], colours: dict[str, str]) -> None:
    for at, arm in enumerate(arms):
        places = [at + 0.12 * _offset(i, len(arm.by_seed)) for i in range(len(arm.by_seed))]
        panel.plot(places, arm.by_seed, "o", color=colours[arm.name], alpha=0.45, markersize=5)
        panel.hlines(arm.mean, at - 0.3, at + 0.3, colors=colours[arm.name], linewidth=2)
        if arm.interval is not None:
            panel.vlines(at, *arm.interval, colors=colours[arm.name], linewidth=1)
    panel.set_xticks(range(len(arms)), [arm.name for arm in arms], rotation=20, ha="right")
    panel.set_xlim(-0.6, len(arms) - 0.4)
    _finish(panel, "test nRMSE", "each seed; geometric mean, 95 %")


def _over_t(panel: Axes, arms: Sequence[ArmErrors], colours: dict[str, str]) -> None:
    for arm in arms:
        points = [(t, e) for t, e in zip(arm.t, arm.over_t, strict=False) if e is not None]
        style = "o-" if len(points) < 2 else "-"  # a steady problem has one time
        panel.plot(*zip(*points, strict=True), style, color=colours[arm.name], label=arm.name)
    panel.set_xlabel("t")
    if arms:  # none when every network diverged
        panel.legend(frameon=False, fontsize=8.5)
    _finish(panel, "test nRMSE", "over time")


def _against_stored(panel: Axes, arms: Sequence[ArmErrors], stored: Sequence[ArmErrors]) -> None:
    in_order = sorted(stored, key=lambda arm: arm.simulations or 0)
    n = [arm.simulations or 0 for arm in in_order]
    panel.plot(n, [arm.mean for arm in in_order], "o-", color=COLOURS[1], label="offline")
    if all(arm.interval is not None for arm in in_order):
        low, high = zip(*(arm.interval for arm in in_order if arm.interval), strict=True)
        panel.fill_between(n, low, high, color=COLOURS[1], alpha=0.15, linewidth=0)
    for arm in (arm for arm in arms if arm.simulations is None and arm.tuned):
        panel.axhline(arm.mean, color=COLOURS[0], linewidth=1.8, label=f"{arm.name}, none stored")
        if arm.interval is not None:
            panel.axhspan(*arm.interval, color=COLOURS[0], alpha=0.15, linewidth=0)
    panel.set_xscale("log")
    panel.set_xticks(n, [f"{count:,}" for count in n])
    panel.minorticks_off()
    panel.set_xlabel("stored training simulations")
    panel.legend(frameon=False, fontsize=8.5)
    _finish(panel, "test nRMSE", "against stored simulations")


def _refer(panel: Axes, references: Sequence[Reference]) -> None:
    for reference in references:
        panel.axhline(reference.value, color=FAINT, linewidth=0.9, linestyle=DASHES)
        panel.annotate(
            reference.name, (0.99, reference.value), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=7.5, color=FAINT,
        )  # fmt: skip


def _finish(panel: Axes, label: str, heading: str) -> None:
    panel.set_yscale("log")
    for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        which(Plain(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    panel.set_ylabel(label)
    panel.set_title(heading, fontsize=9.5, loc="left", color=FAINT)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


class Plain(LogFormatter):
    """0.6 instead of 6e-01, at the places that LogFormatter labels."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:.3g}" if super().__call__(x, pos) else ""


def _offset(i: int, n: int) -> float:
    """Places beside each other, from -1 to 1."""
    return 0.0 if n == 1 else 2 * i / (n - 1) - 1
