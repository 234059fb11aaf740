"""Curves of the report: errors against whatever, beside each other on one vertical axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from penstock_server.pictures.twice import WIDTH, Drawn, Theme, twice

DASHES = (0, (5, 2))
SHOWN_BELOW = 10.0  # an opponent further below the networks than this is only named
MARKED = 60  # points of a curve that has marks


@dataclass(frozen=True)
class Curve:
    """`own` curves decide the range of the axis; the same label is one entry of the legend."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str | int
    own: bool = True
    dashed: bool = False
    marked: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    label: str
    value: float
    colour: str | int


@dataclass(frozen=True)
class Panel:
    x_label: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()
    title: str = ""


def draw_panels(panels: Sequence[Panel], y_label: str) -> Drawn:
    """Panels side by side with one logarithmic vertical axis and one legend above."""
    low, high = limits(panels)

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        entries: dict[str, Line2D] = {}
        for axis, panel in zip(axes, panels, strict=True):
            _fill(axis, panel, theme, low, high, entries)
        for axis in axes:
            _scale(axis, low, high)
        axes[0].set_ylabel(y_label)
        _legend(figure, entries)
        return figure

    return twice(draw)


def draw_shares(panels: Sequence[Panel], x_label: str) -> Drawn:
    """Distributions: the share of simulations (y) with at most an error (x, logarithmic)."""
    turned = [
        Panel("", [Curve(c.label, c.y, c.x, c.colour, c.own) for c in panel.curves])
        for panel in panels
    ]
    low, high = limits(turned)

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        entries: dict[str, Line2D] = {}
        for axis, panel in zip(axes, panels, strict=True):
            axis.grid(True)
            axis.set_title(panel.title)
            for curve in panel.curves:
                style = DASHES if curve.dashed else "-"
                colour = theme.colour(curve.colour)
                hidden = max(curve.x) < low
                label = f"{curve.label} (further left)" if hidden else curve.label
                (line,) = axis.plot(
                    [] if hidden else curve.x,
                    [] if hidden else curve.y,
                    color=colour,
                    lw=1.7,
                    ls=style,
                    drawstyle="steps-post",
                )
                entries.setdefault(label, line)
            axis.set_xscale("log")
            axis.set_xlim(low, high)
            _few_numbers(axis, low, high, "x")
            axis.set_xlabel(x_label)
        axes[0].set_ylim(0, 1.02)
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes[0].set_ylabel("simulations")
        _legend(figure, entries)
        return figure

    return twice(draw)


def limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Of the vertical axis: own curves, and the others unless they are far below."""
    curves = [curve for panel in panels for curve in panel.curves]
    own = [v for curve in curves if curve.own for v in curve.y if v > 0 and math.isfinite(v)]
    others = [v for curve in curves if not curve.own for v in curve.y]
    others += [level.value for panel in panels for level in panel.levels]
    others = [v for v in others if v > 0 and math.isfinite(v)]
    own = own or others or [1.0]
    shown = own + [v for v in others if v > min(own) / SHOWN_BELOW]
    margin = min(1.5, max(1.1, (max(shown) / min(shown)) ** 0.15))
    return min(shown) / margin, max(shown) * margin


def _fill(
    axis: Axes,
    panel: Panel,
    theme: Theme,
    low: float,
    high: float,
    entries: dict[str, Line2D],
) -> None:
    axis.grid(axis="y")
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.margins(x=0.02)
    for level in panel.levels:
        colour, label = theme.colour(level.colour), f"{level.label}: {level.value:.3g}"
        if level.value < low:
            entries.setdefault(f"{label} (below the axis)", Line2D([], [], color=colour, ls=DASHES))
            continue
        entries.setdefault(label, axis.axhline(level.value, color=colour, lw=1.4, ls=DASHES))
    for curve in panel.curves:
        values = np.asarray(curve.y, dtype=float)
        hidden = len(values) > 0 and float(np.nanmax(values)) < low
        marked = curve.marked and len(values) <= MARKED
        (line,) = axis.plot(
            [] if hidden else curve.x,
            [] if hidden else values,
            color=theme.colour(curve.colour),
            lw=1.3 if curve.colour == "training" else 1.8,
            ls=DASHES if curve.dashed else "-",
            marker="o" if marked else "",
            ms=3.4,
            drawstyle="steps-post" if curve.steps else "default",
        )
        entries.setdefault(f"{curve.label} (below the axis)" if hidden else curve.label, line)


def _scale(axis: Axes, low: float, high: float) -> None:
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    _few_numbers(axis, low, high, "y")


def _few_numbers(axis: Axes, low: float, high: float, which: str) -> None:
    """Plain numbers, few enough to be read."""
    scale = axis.yaxis if which == "y" else axis.xaxis
    decades = math.log10(high / low)
    few = 1.3 if which == "x" else 2.4
    subdivisions: tuple[float, ...] = (1.0,)
    if decades < 0.6:
        subdivisions = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    elif decades < few:
        subdivisions = (1.0, 2.0, 5.0)
    elif decades < 3:
        subdivisions = (1.0, 3.0)
    scale.set_major_locator(LogLocator(subs=subdivisions, numticks=12))
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(NullFormatter())
    scale.set_minor_locator(NullLocator())


def _legend(figure: Figure, entries: dict[str, Line2D]) -> None:
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper left",
            ncols=min(4, len(entries)),
            handlelength=2.6,
            columnspacing=1.6,
        )
