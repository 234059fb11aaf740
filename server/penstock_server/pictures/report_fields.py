"""Held-out examples of the report: solver, surrogate and error, for fields of any dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from penstock_server.pictures.twice import WIDTH, Drawn, Theme, twice

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """One field of one simulation, without its missing times: truth, prediction (k, *shape)."""

    label: str  # with the unit
    components: int  # more than one are the trailing axis; their length is drawn
    t: Array  # (k,)
    truth: Array
    prediction: Array


def draw_example(shown: Shown) -> Drawn:
    """Images over times, profiles, or curves over t, by the number of the grid's axes."""
    truth, prediction = shown.truth.astype(float), shown.prediction.astype(float)
    axes = truth.ndim - 1 - (shown.components > 1)
    if axes == 0:
        return twice(lambda theme: _over_t(theme, shown, truth, prediction))
    error = np.abs(truth - prediction)
    if shown.components > 1:
        # The error of a vector is the length of the difference, not the difference of lengths.
        error = np.linalg.norm(truth - prediction, axis=-1)
        truth, prediction = (np.linalg.norm(v, axis=-1) for v in (truth, prediction))
    while truth.ndim > 3:  # the middle plane of a volume
        middle = truth.shape[1] // 2
        truth, prediction, error = truth[:, middle], prediction[:, middle], error[:, middle]
    if axes == 1:
        return twice(lambda theme: _profiles(theme, shown, truth, prediction, error))
    return twice(lambda theme: _images(theme, shown, truth, prediction, error))


def _images(theme: Theme, shown: Shown, truth: Array, prediction: Array, error: Array) -> Figure:
    """Rows solver, surrogate, error; a column a time."""
    k, (ny, nx) = len(shown.t), truth.shape[1:]
    long = not 0.4 < ny / nx < 2.5
    side = 1.75
    height = 3 * side * (1 if long else min(1.3, ny / nx)) + 0.45
    width = min(WIDTH, k * side * (1 if long else min(1.6, max(1.0, nx / ny))) + 1.35)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(3, k, squeeze=False)
    low, high = (float(f(np.stack([truth, prediction]))) for f in (np.nanmin, np.nanmax))
    largest = float(np.nanmax(error)) or 1.0
    for row, (name, values) in enumerate(
        (("solver", truth), ("surrogate", prediction), ("absolute error", error))
    ):
        is_error = row == 2
        for column in range(k):
            axis: Axes = axes[row, column]
            image = axis.imshow(
                values[column],
                origin="lower",
                cmap=theme.error_map if is_error else theme.field_map,
                vmin=0.0 if is_error else low,
                vmax=largest if is_error else high,
                aspect="auto" if long else "equal",
                interpolation="nearest",
            )
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(f"t = {shown.t[column]:.3g}", loc="center", fontsize=9.5)
        axes[row, 0].set_ylabel(name)
        if row > 0:
            group = axes[2] if is_error else axes[:2].ravel()
            bar = figure.colorbar(
                image, ax=list(group), label=shown.label, pad=0.015, fraction=0.05, aspect=28
            )
            bar.outline.set_visible(False)
            bar.locator = MaxNLocator(5)
            bar.update_ticks()
    return figure


def _profiles(theme: Theme, shown: Shown, truth: Array, prediction: Array, error: Array) -> Figure:
    """A field with one axis: profiles at each time, and their errors."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, time in enumerate(shown.t):
        colour = theme.colour(i)
        left.plot(truth[i], color=colour, lw=2.2, alpha=0.45)
        left.plot(prediction[i], color=colour, lw=1.3, ls=(0, (4, 2)))
        right.plot(error[i], color=colour, lw=1.4, label=f"t = {time:.3g}")
    left.set_title("solver (full) and surrogate (dashed)")
    right.set_title("absolute error")
    for axis in (left, right):
        axis.grid(axis="y")
        axis.margins(x=0)
        axis.set_xlabel("cell")
        axis.set_ylabel(shown.label)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _over_t(theme: Theme, shown: Shown, truth: Array, prediction: Array) -> Figure:
    """A field without axes: its components over t."""
    k = len(shown.t)
    truth, prediction = truth.reshape(k, -1), prediction.reshape(k, -1)
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    for c in range(truth.shape[1]):
        colour = theme.colour(c)
        left.plot(shown.t, truth[:, c], color=colour, lw=2.2, alpha=0.45)
        left.plot(shown.t, prediction[:, c], color=colour, lw=1.3, ls=(0, (4, 2)))
        error = np.abs(truth[:, c] - prediction[:, c])
        right.plot(shown.t, error, color=colour, lw=1.3, label=f"component {c + 1}")
    left.set_title("solver (full) and surrogate (dashed)")
    right.set_title("absolute error")
    for axis in (left, right):
        axis.grid(axis="y")
        axis.margins(x=0.01)
        axis.set_xlabel("t")
        axis.set_ylabel(shown.label)
    if truth.shape[1] > 1:
        figure.legend(*right.get_legend_handles_labels(), loc="outside right upper")
    return figure
