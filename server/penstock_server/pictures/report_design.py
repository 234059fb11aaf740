"""The designed inputs of the report: scatter by pairs of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from penstock_server.pictures.twice import WIDTH, Drawn, Theme, twice

MOST = 6  # parameters in one picture

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Cloud:
    """Points of one kind: values (n, p)."""

    label: str
    values: Array
    marker: str
    colour: str | int
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    name: str
    low: float
    high: float
    logarithmic: bool = False


def draw_design(axes: Sequence[Axis], clouds: Sequence[Cloud]) -> Drawn:
    """Up to MOST parameters: every pair, or, for a single one, its values along a line."""
    axes = axes[:MOST]

    def draw(theme: Theme) -> Figure:
        return _line(theme, axes[0], clouds) if len(axes) == 1 else _pairs(theme, axes, clouds)

    return twice(draw)


def _pairs(theme: Theme, axes: Sequence[Axis], clouds: Sequence[Cloud]) -> Figure:
    n = len(axes) - 1
    side = min(3.6, (WIDTH - 0.5) / n)
    width = max(side * n + 0.5, 6.5)
    figure = Figure(figsize=(width, 0.8 * side * n + 0.55), layout="constrained")
    grid = figure.subplots(n, n, squeeze=False, sharex="col", sharey="row")
    for row in range(n):
        for column in range(n):
            panel: Axes = grid[row, column]
            if column > row:
                panel.set_visible(False)
                continue
            _scatter(panel, theme, clouds, column, row + 1, _size(clouds, n))
            _axis(panel, axes[column], "x", row == n - 1)
            _axis(panel, axes[row + 1], "y", column == 0)
    handles = [_handle(theme, cloud) for cloud in clouds]
    figure.legend(
        handles,
        [cloud.label for cloud in clouds],
        loc="outside right upper" if n == 1 else "upper right",
    )
    return figure


def _line(theme: Theme, axis: Axis, clouds: Sequence[Cloud]) -> Figure:
    """One row a kind of point."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.4 * len(clouds)), layout="constrained")
    panel = figure.subplots()
    for row, cloud in enumerate(clouds):
        panel.plot(cloud.values[:, 0], np.full(len(cloud.values), row), **_marks(theme, cloud, 5.0))
    panel.set_yticks(range(len(clouds)), [cloud.label for cloud in clouds])
    panel.set_ylim(-0.6, len(clouds) - 0.4)
    panel.invert_yaxis()
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0, labelcolor=theme.ink)
    _axis(panel, axis, "x", True)
    return figure


def _scatter(
    panel: Axes, theme: Theme, clouds: Sequence[Cloud], x: int, y: int, size: float
) -> None:
    panel.grid(True)
    for cloud in clouds:
        panel.plot(cloud.values[:, x], cloud.values[:, y], **_marks(theme, cloud, size))


def _marks(theme: Theme, cloud: Cloud, size: float) -> Mapping[str, Any]:
    colour = theme.colour(cloud.colour)
    special = cloud.marker != "o"
    return {
        "ls": "",
        "marker": cloud.marker,
        "ms": size * (1.7 if special else 1.0),
        "color": colour,
        "mfc": "none" if cloud.hollow else colour,
        "mew": 1.3 if special or cloud.hollow else 0.0,
        "alpha": 1.0 if special or cloud.hollow else 0.75,
        "zorder": 3 if special else 2,
    }


def _handle(theme: Theme, cloud: Cloud) -> Line2D:
    return Line2D([], [], **_marks(theme, cloud, 5.0))


def _size(clouds: Sequence[Cloud], panels: int) -> float:
    points = sum(len(cloud.values) for cloud in clouds)
    largest = 5.0 if points < 100 else 3.5 if points < 500 else 2.2
    return largest if panels < 4 else 0.8 * largest


def _axis(panel: Axes, axis: Axis, which: str, named: bool) -> None:
    margin = 0.04
    if axis.logarithmic:
        spread = (axis.high / axis.low) ** margin
        limits = axis.low / spread, axis.high * spread
    else:
        spread = margin * (axis.high - axis.low) or 1.0
        limits = axis.low - spread, axis.high + spread
    scale = panel.xaxis if which == "x" else panel.yaxis
    if axis.logarithmic:
        (panel.set_xscale if which == "x" else panel.set_yscale)("log")
        scale.set_major_locator(LogLocator(subs=(1.0,)))
        scale.set_minor_formatter(NullFormatter())
    else:
        scale.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    (panel.set_xlim if which == "x" else panel.set_ylim)(*limits)
    if named:
        (panel.set_xlabel if which == "x" else panel.set_ylabel)(axis.name)
