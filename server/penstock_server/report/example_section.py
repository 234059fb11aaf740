"""Pictures of held-out examples; for `writing`."""

from __future__ import annotations

import numpy as np

from penstock_server.examples_file import Examples
from penstock_server.pictures.report_fields import Shown, draw_example
from penstock_server.report.blocks import Block, Missing, Picture, Section, Text
from penstock_server.report.numbers import measured
from penstock_server.report.reading import Run

TITLE = "Held-out simulations"
MOST_PICTURES = 6


def example_section(run: Run) -> Section:
    """Solver, surrogate and error of the examples that the validator left."""
    examples = run.examples
    if examples is None:
        missing = "examples.npz is missing, so there are no pictures of held-out simulations."
        return Section(TITLE, [Missing(missing)])
    n = len(examples.simulation)
    fields = list(examples.fields)
    chosen = fields[: max(1, MOST_PICTURES // max(1, n))]
    blocks: list[Block] = [
        Text(
            f"Predictions of the network after {examples.batch:,} batches, on simulations that it "
            "never saw: those of the median, the 95th percentile and the largest error."
        )
    ]
    if len(chosen) < len(fields):
        blocks.append(Text(f"Of {len(fields)} fields: {', '.join(chosen)}."))
    blocks += [_picture(examples, i, name) for i in range(n) for name in chosen]
    return Section(TITLE, blocks)


def _picture(examples: Examples, i: int, name: str) -> Picture:
    values = zip(examples.names, examples.parameters[i].tolist(), strict=True)
    notes = [
        f"{examples.role[i].capitalize()} simulation {int(examples.simulation[i])}, "
        f"{examples.reason[i]} (nRMSE {measured(float(examples.error[i]))})",
        ", ".join(f"{parameter} = {value:.4g}" for parameter, value in values),
    ]
    stride = int(examples.fields[name]["stride"])
    if stride > 1:
        notes.append(f"shown with a stride of {stride} cells along each axis")
    caption = "; ".join(note for note in notes if note) + "."
    drawn = draw_example(shown(examples, i, name))
    return Picture(drawn, f"{name}: solver, surrogate and absolute error. {caption}", caption)


def shown(examples: Examples, i: int, name: str) -> Shown:
    """One field of the i-th example: over all its times if it has no grid, else at a few."""
    spec = examples.fields[name]
    unit, components = str(spec["unit"]), int(spec["components"])
    if examples.curve_t is not None and name in examples.curve_truth:
        t = examples.curve_t[i]
        pair = [examples.curve_truth[name][i], examples.curve_prediction[name][i]]
        if components == 1:
            pair = [values[:, 0] for values in pair]  # one number a time, no axis of one cell
        label = name
    else:
        t = examples.t[i]
        pair = [examples.truth[name][i], examples.prediction[name][i]]
        label = f"|{name}|" if components > 1 else name
    there = np.isfinite(t)
    truth, prediction = (values[there] for values in pair)
    return Shown(f"{label} ({unit})" if unit else label, components, t[there], truth, prediction)
