"""The picture of a run: solver, surrogate and error side by side, the errors below them.

The validator calls `demo_picture` at the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Array = npt.NDArray[Any]

FIELD_COLOURS, ERROR_COLOURS = "inferno", "viridis"  # both perceptually uniform
INK, FAINT, GRID = "#1f2733", "#66707d", "#e3e7ec"
NETWORK, TRAINING, CONSTANT, LINEAR = "#0b62b0", "#a9c9e8", "#7a8088", "#c8571b"
LINES = ("#0b62b0", "#c8571b", "#3a8f5c")  # components of a field without axes
DASHES = (0, (5, 2))
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
WIDTH, ROW, CURVES, HEAD, FOOT, GAP = 10.4, 2.85, 2.5, 1.05, 0.62, 0.75  # inches


@dataclass(frozen=True)
class Example:
    """One held-out simulation and its prediction, physical: truth, prediction (k, *shape)."""

    field: str
    unit: str
    simulation: int
    role: str
    parameters: Mapping[str, float]
    t: Array  # (k,)
    truth: Array
    prediction: Array
    components: int = 1  # more than one are the trailing axis


@dataclass(frozen=True)
class OverTime:
    """nRMSE of each step over all held-out simulations; empty: not known."""

    t: Sequence[float] = ()
    network: Sequence[float] = ()
    constant: Sequence[float] = ()
    linear: Sequence[float] = ()


@dataclass(frozen=True)
class Curves:
    """Errors over the run. Validation errors and opponents are nRMSE."""

    loss: Sequence[tuple[int, float]] = ()  # (batch, training loss of normalised fields)
    loss_name: str = "mse"
    validation: Sequence[tuple[int, float]] = ()  # (batch, nRMSE)
    constant: float | None = None
    linear: float | None = None
    over_t: OverTime = field(default_factory=OverTime)


def most_pictorial(fields: Mapping[str, tuple[tuple[int, ...], int]]) -> str:
    """The field to show, from name -> (shape, components): the one with most axes, then cells."""

    def rank(name: str) -> tuple[int, int]:
        shape, components = fields[name]
        return len(shape) - (components > 1), math.prod(shape)

    return max(fields, key=rank)


def demo_picture(path: Path, example: Example, curves: Curves, title: str = "") -> None:
    """Write a PNG: the field at two times on top, errors over batches and over t below."""
    truth, prediction = (
        _scalars(v, example.components) for v in (example.truth, example.prediction)
    )
    two_times = truth.ndim == 3
    rows = 2 if two_times and len(truth) > 1 else 1
    height = HEAD + rows * ROW + GAP + CURVES + FOOT
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, height), dpi=160, facecolor="white")
        FigureCanvasAgg(figure)
        _write_head(figure, example, title, height)
        bottom = FOOT + CURVES + GAP
        top = {"bottom": bottom / height, "top": 1 - HEAD / height}
        if two_times:
            _draw_images(figure, example, truth, prediction, rows, top)
        elif example.truth[0].ndim - (example.components > 1) == 1:
            _draw_space_time(figure, example, truth, prediction, top)
        else:
            _draw_series(figure, example, top)
        below = {"bottom": FOOT / height, "top": (FOOT + CURVES) / height}
        _draw_curves(figure, curves, below)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _write_head(figure: Figure, example: Example, title: str, height: float) -> None:
    left = 0.62 / WIDTH
    shown = ", ".join(f"{name} = {value:.4g}" for name, value in example.parameters.items())
    if len(shown) > 120:
        shown = f"{len(example.parameters)} parameters"
    length = example.components > 1 and example.truth.ndim > 2
    heading = title or f"{example.field}: solver and surrogate"
    heading += f", length of {example.field}" if length else ""
    figure.text(left, 1 - 0.34 / height, heading, size=14.5, weight="bold", va="center")
    subtitle = f"{example.role} simulation {example.simulation}, never trained on:  {shown}"
    figure.text(left, 1 - 0.62 / height, subtitle, size=9.5, color=FAINT, va="center")


def _draw_images(
    figure: Figure,
    example: Example,
    truth: Array,
    prediction: Array,
    rows: int,
    box: dict[str, float],
) -> None:
    """Two times (an early and the last one), (k, y, x)."""
    steps = [max(1, len(truth) // 10) - 1, len(truth) - 1][-rows:]
    error = np.abs(prediction[steps] - truth[steps])
    low, high = float(truth.min()), float(truth.max())
    axes = _three_columns(figure, rows, box)
    for row, step in enumerate(steps):
        panels = (truth[step], prediction[step], error[row])
        for column, values in enumerate(panels):
            axis = axes[row][column]
            limits = (0.0, float(error.max()) or 1.0) if column == 2 else (low, high)
            image = axis.imshow(
                values,
                origin="lower",
                cmap=ERROR_COLOURS if column == 2 else FIELD_COLOURS,
                vmin=limits[0],
                vmax=limits[1],
                interpolation="nearest",
                aspect="auto" if _is_long(values) else "equal",
            )
            axis.set_xticks([])
            axis.set_yticks([])
            if column > 0 and row == rows - 1:
                _colour_bar(figure, axes[0][column], axis, image, _unit(example))
        axes[row][0].set_ylabel(f"t = {example.t[step]:.4g}", size=10.5, labelpad=7)
    _name_columns(axes[0])


def _draw_space_time(
    figure: Figure, example: Example, truth: Array, prediction: Array, box: dict[str, float]
) -> None:
    """A field with one axis, (k, x): position over t."""
    extent = (float(example.t[0]), float(example.t[-1]), 0.0, float(truth.shape[1]))
    error = np.abs(prediction - truth)
    (axes,) = _three_columns(figure, 1, box)
    for column, values in enumerate((truth, prediction, error)):
        axis = axes[column]
        image = axis.imshow(
            values.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap=ERROR_COLOURS if column == 2 else FIELD_COLOURS,
            vmin=0.0 if column == 2 else float(truth.min()),
            vmax=(float(error.max()) or 1.0) if column == 2 else float(truth.max()),
        )
        axis.set_xlabel("t")
        axis.xaxis.set_major_locator(
            MaxNLocator(4, prune="upper")
        )  # "2.0" would touch the next "0.0"
        if column == 0:
            axis.set_ylabel("cell")
        else:
            axis.set_yticks([])
            _colour_bar(figure, axis, axis, image, _unit(example))
    _name_columns(axes)


def _draw_series(figure: Figure, example: Example, box: dict[str, float]) -> None:
    """A field without axes: its components over t, the error beside them."""
    grid = GridSpec(
        1, 2, figure=figure, left=0.075, right=0.975, wspace=0.2, width_ratios=[2, 1], **box
    )
    values, error = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    truth = example.truth.reshape(len(example.t), -1)
    prediction = example.prediction.reshape(len(example.t), -1)
    for c in range(min(truth.shape[1], len(LINES))):
        colour, name = LINES[c], f" {c + 1}" if truth.shape[1] > 1 else ""
        values.plot(example.t, truth[:, c], color=colour, lw=1.6, label=f"solver{name}")
        values.plot(
            example.t, prediction[:, c], color=colour, lw=1.2, ls="--", label=f"surrogate{name}"
        )
        error.plot(example.t, np.abs(prediction[:, c] - truth[:, c]), color=colour, lw=1.2)
    values.set_title("solver (full) and surrogate (dashed)", size=10.5)
    error.set_title("absolute error", size=10.5)
    for axis in (values, error):
        _plain(axis)
        axis.set_xlabel("t")
        axis.set_ylabel(_unit(example))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.margins(x=0)


def _draw_curves(figure: Figure, curves: Curves, box: dict[str, float]) -> None:
    """Left over batches, right over t, with one vertical axis."""
    over_t = len(curves.over_t.network) > 0
    columns = 2 if over_t else 1
    grid = GridSpec(1, columns, figure=figure, left=0.085, right=0.865, wspace=0.09, **box)
    batches = figure.add_subplot(grid[0])
    batches.set_xlabel("batches")
    batches.set_ylabel("RMSE / spread of the field")
    batches.set_title("error during training", size=10.5, loc="left")
    panels = [batches]
    if over_t:
        times = figure.add_subplot(grid[1])
        times.set_xlabel("t")
        times.set_title("error of the final surrogate over t", size=10.5, loc="left")
        times.tick_params(labelleft=False)
        panels.append(times)
    low, high = _limits(curves)
    for axis in panels:
        _scale(axis, low, high)
    if curves.loss:
        # The root of a mean squared error of standardised fields compares with an nRMSE.
        root = curves.loss_name == "mse"
        values = [math.sqrt(loss) if root else loss for _, loss in curves.loss]
        label = "training" if root else f"training loss ({curves.loss_name})"
        batches.plot([b for b, _ in curves.loss], values, color=TRAINING, lw=1.1, label=label)
    if curves.validation:
        style: dict[str, Any] = {"color": NETWORK, "lw": 1.8, "ms": 3.4}
        marker = "o" if len(curves.validation) <= 40 else ""
        points = np.array(curves.validation, dtype=float).T
        batches.plot(*points, marker=marker, label="validation", **style)
    if curves.loss or curves.validation:
        batches.legend(frameon=False, loc="lower left", fontsize=9)
    if over_t:
        panels[1].plot(curves.over_t.t, curves.over_t.network, color=NETWORK, lw=1.8)
    _draw_opponents(panels, curves, low, high)


def _scale(axis: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis with few, plain numbers."""
    _plain(axis)
    axis.set_ylim(low, high)
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    axis.minorticks_off()
    axis.margins(x=0.01)
    subdivisions = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axis.yaxis.set_major_locator(LogLocator(subs=subdivisions))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _draw_opponents(panels: list[Axes], curves: Curves, low: float, high: float) -> None:
    """Horizontal lines over batches, curves over t; names and values at the right end."""
    last = curves.validation[-1][1] if curves.validation else None
    entries = [
        ("best constant", curves.constant, curves.over_t.constant, CONSTANT),
        ("surrogate", last, curves.over_t.network, NETWORK),
        ("linear emulator", curves.linear, curves.over_t.linear, LINEAR),
    ]
    labels: list[tuple[float, str, str]] = []  # height in the axis, text, colour
    for name, value, over_t, colour in entries:
        if value is None or not math.isfinite(value):
            continue
        off_scale = value < low
        text = f"{name}\n{value:#.2g}" + (" (below)" if off_scale else "")
        end = over_t[-1] if len(panels) > 1 and len(over_t) else value
        height = math.log(max(end, low) / low) / math.log(high / low)
        labels.append((0.02 if off_scale else height, text, colour))
        if name != "surrogate" and not off_scale:
            panels[0].axhline(value, color=colour, lw=1.4, ls=DASHES)
            for axis in panels[1:]:
                axis.plot(curves.over_t.t, over_t, color=colour, lw=1.4, ls=DASHES)
    for (_, text, colour), height in zip(
        labels, spread_labels([h for h, _, _ in labels]), strict=True
    ):
        panels[-1].annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            size=9,
            annotation_clip=False,
        )


def spread_labels(heights: Sequence[float], distance: float = 0.17) -> list[float]:
    """Heights moved as little as need be, so that labels of two lines do not touch."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + distance)
    if order and placed[order[-1]] > 1.0:  # push the stack back down from the top
        placed[order[-1]] = 1.0
        for upper, lower in pairwise(reversed(order)):
            placed[lower] = min(placed[lower], placed[upper] - distance)
    return placed


def _limits(curves: Curves) -> tuple[float, float]:
    """The vertical range: the network's curves decide; an opponent far below is only named."""
    network = [v for _, v in curves.validation] + list(curves.over_t.network)
    if curves.loss_name == "mse":
        network += [math.sqrt(v) for _, v in curves.loss]
    else:
        network += [v for _, v in curves.loss]
    own = [v for v in network if v > 0 and math.isfinite(v)] or [1.0]
    others = [v for v in (curves.constant, curves.linear) if v is not None and v > min(own) / 10]
    return min(own + others) / 1.6, max(own + others) * 1.6


def _three_columns(figure: Figure, rows: int, box: dict[str, float]) -> list[list[Axes]]:
    """Truth and prediction side by side, room for a colour bar after the second and the third."""
    grid = GridSpec(
        rows,
        5,
        figure=figure,
        left=0.075,
        right=0.925,
        width_ratios=[1, 1, 0.21, 1, 0.02],
        wspace=0.06,
        hspace=0.06,
        **box,
    )
    return [[figure.add_subplot(grid[r, c]) for c in (0, 1, 3)] for r in range(rows)]


def _name_columns(axes: list[Axes]) -> None:
    for axis, name in zip(axes, ("solver", "surrogate", "absolute error"), strict=True):
        axis.set_title(name, size=11.5, pad=7)


def _colour_bar(figure: Figure, top: Axes, bottom: Axes, image: Any, unit: str) -> None:
    """Right of a column, from the bottom image to the top one."""
    below, above = bottom.get_position(), top.get_position()
    box = (below.x1 + 0.01, below.y0, 0.012, above.y1 - below.y0)
    bar_axis = figure.add_axes(box)
    bar = figure.colorbar(image, cax=bar_axis)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(7)
    bar.update_ticks()
    bar_axis.tick_params(length=2, pad=2)
    bar_axis.set_title(unit, size=9, color=FAINT, pad=5)


def _plain(axis: Axes) -> None:
    """No box, a faint horizontal grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color=GRID, lw=0.8)
    axis.set_axisbelow(True)


def _scalars(values: Array, components: int) -> Array:
    """(k, *shape) -> (k, y, x), (k, x) or (k,): a vector's length, the middle plane of a volume."""
    if components > 1:
        values = np.linalg.norm(values, axis=-1)
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    return values


def _is_long(values: Array) -> bool:
    ratio = values.shape[0] / values.shape[1]
    return not 0.5 < ratio < 2


def _unit(example: Example) -> str:
    return example.unit or "value"
