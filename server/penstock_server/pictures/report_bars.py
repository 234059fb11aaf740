"""Bars of the report: where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from penstock_server.pictures.twice import WIDTH, Drawn, Theme, twice

LABELLED = 0.08  # the least share of the axis that has room for a number


@dataclass(frozen=True)
class Bar:
    """Parts in their order; each name has one colour in all bars."""

    label: str
    parts: Mapping[str, float]


def draw_bars(bars: Sequence[Bar], unit: str) -> Drawn:
    """Horizontal stacked bars, one below the other. unit "%": parts are shares of one."""
    names = list(dict.fromkeys(name for bar in bars for name in bar.parts))
    longest = max((sum(bar.parts.values()) for bar in bars), default=0.0) or 1.0
    percent = unit == "%"

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 1.05 + 0.42 * len(bars)), layout="constrained")
        axis = figure.subplots()
        for row, bar in enumerate(bars):
            start = 0.0
            for name, value in bar.parts.items():
                colour = theme.colour(names.index(name))
                axis.barh(row, value, left=start, height=0.62, color=colour)
                if value > LABELLED * longest:
                    text = f"{100 * value:.0f} %" if percent else f"{value:.3g} {unit}"
                    middle = start + value / 2
                    axis.text(middle, row, text, ha="center", va="center", color=_on(theme))
                start += value
        axis.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axis.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=9)
        axis.invert_yaxis()
        axis.set_xlim(0, longest)
        axis.spines["left"].set_visible(False)
        if percent:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        else:
            axis.set_xlabel("seconds" if unit == "s" else unit)
        handles = [Patch(color=theme.colour(i)) for i in range(len(names))]
        figure.legend(
            handles, names, loc="outside upper left", ncols=min(5, len(names)), handlelength=1.0
        )
        return figure

    return twice(draw)


def _on(theme: Theme) -> str:
    """The ink on coloured bars: these are dark on a light page and light on a dark one."""
    return "#ffffff" if theme.ink.startswith("#1") else "#14181d"
