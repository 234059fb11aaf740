"""A picture of the report, drawn for light and for dark pages, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

WIDTH = 9.6  # inches of the page's column
CSS_PER_INCH = 96
DPI = 144  # of pixels: one and a half for each of the page's


@dataclass(frozen=True)
class Theme:
    """Colours that keep their contrast on one background."""

    ink: str
    faint: str
    grid: str
    network: str
    best: str
    training: str
    constant: str
    linear: str
    bad: str
    series: tuple[str, ...]  # for runs, components and parts
    error_map: str
    field_map: str = "inferno"

    def colour(self, key: str | int) -> str:
        """Of an idea ("network"), or of the i-th of several things."""
        if isinstance(key, int):
            return self.series[key % len(self.series)]
        return str(getattr(self, key))


LIGHT = Theme(
    ink="#1f2733",
    faint="#56606d",
    grid="#e3e7ec",
    network="#0b62b0",
    best="#17805a",
    training="#8fb7de",
    constant="#737b84",
    linear="#c8571b",
    bad="#b3261e",
    series=("#0b62b0", "#c8571b", "#17805a", "#8a4fb0", "#a07800", "#00838f", "#b3261e", "#56606d"),
    error_map="viridis",
)
DARK = Theme(
    ink="#e4e8ec",
    faint="#a5afba",
    grid="#343c45",
    network="#6db3f2",
    best="#4cc79a",
    training="#4a6f96",
    constant="#a3abb4",
    linear="#f0935a",
    bad="#ff8a80",
    series=("#6db3f2", "#f0935a", "#4cc79a", "#c594e8", "#dbb440", "#4fc3cf", "#ff8a80", "#a5afba"),
    error_map="viridis",
)


@dataclass(frozen=True)
class Drawn:
    """One picture; light and dark are data URIs, width and height those of the page."""

    light: str
    dark: str
    width: int
    height: int

    @property
    def n_bytes(self) -> int:
        return len(self.light) + len(self.dark)


def twice(draw: Callable[[Theme], Figure]) -> Drawn:
    """The figure that `draw` makes, for both backgrounds."""
    figures = [_encoded(draw, theme) for theme in (LIGHT, DARK)]
    (light, width, height), (dark, _, _) = figures
    return Drawn(light, dark, width, height)


def _encoded(draw: Callable[[Theme], Figure], theme: Theme) -> tuple[str, int, int]:
    with rc_context(_style(theme)):  # type: ignore[arg-type]
        figure = draw(theme)
        figure.patch.set_alpha(0.0)
        width, height = (round(CSS_PER_INCH * inches) for inches in figure.get_size_inches())
        vector = _bytes(figure, "svg", metadata={"Date": None, "Creator": None})
        pixels = _bytes(figure, "png", dpi=DPI)
    kind, data = ("svg+xml", vector) if len(vector) <= len(pixels) else ("png", pixels)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", width, height


def _bytes(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _style(theme: Theme) -> dict[str, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": theme.ink,
        "text.parse_math": False,  # a unit may hold a dollar
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.hashsalt": "penstock",  # the same run gives the same file
    }
