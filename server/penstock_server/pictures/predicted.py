"""Predicted fields side by side; `predict` calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MOST = 6  # rows and columns


def draw_fields(path: Path, fields: npt.NDArray[Any], t: npt.NDArray[Any], label: str) -> None:
    """A row a set of parameters, a column a time, up to MOST of each, on one scale.

    fields: (b, k, n) is drawn as curves, (b, k, n, m) as images; t: (k,).
    """
    columns = np.unique(np.linspace(0, len(t) - 1, MOST).round().astype(int))
    shown = fields[:MOST][:, columns]  # (row, column, n) or (row, column, n, m)
    rows, low, high = len(shown), float(shown.min()), float(shown.max())
    figure = Figure(figsize=(2.2 * len(columns) + 1.2, 2.2 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, len(columns), squeeze=False, sharex=True, sharey=True)
    image = None
    for i, j in np.ndindex(rows, len(columns)):
        panel = cast(Axes, panels[i, j])
        if shown.ndim == 4:
            image = panel.imshow(shown[i, j], origin="lower", vmin=low, vmax=high)
            panel.set_xticks([])
            panel.set_yticks([])
        else:
            panel.plot(shown[i, j])
        if i == 0:
            panel.set_title(f"t = {t[columns[j]]:.3g}", fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=panels, label=label, shrink=0.8)
    else:
        figure.supylabel(label, fontsize=9)
    part = path.with_name(f"{path.name}.part")
    figure.savefig(part, dpi=130, format="png")
    part.replace(path)
