"""What the campaign was: settings, inputs and fields as tables; `writing` puts them on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock_server.report.blocks import Block, Code, Section, Table
from penstock_server.report.files import at, number, table
from penstock_server.report.reading import Run

# (label, keys in the campaign file)
SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mode", ("mode",)),
    ("seed", ("seed",)),
    ("solver", ("solver", "command")),
    ("workers", ("solver", "workers")),
    ("MPI ranks of a worker", ("solver", "mpi_ranks")),
    ("steps of a simulation", ("solver", "steps")),
    ("sampler", ("design", "sampler")),
    ("training simulations", ("design", "simulations")),
    ("validation simulations", ("design", "validation")),
    ("test simulations", ("design", "test")),
    ("surrogate", ("training", "surrogate")),
    ("its options", ("training", "options")),
    ("training ranks", ("training", "ranks")),
    ("batch size of a rank", ("training", "batch_size")),
    ("steps of a sample", ("training", "window")),
    ("from one of them to the next", ("training", "stride")),
    ("box of the grid that it shows", ("training", "patch")),
    ("optimizer", ("training", "optimizer")),
    ("learning rate", ("training", "learning_rate")),
    ("schedule", ("training", "schedule")),
    ("weight decay", ("training", "weight_decay")),
    ("loss", ("training", "loss")),
    ("precision", ("training", "dtype")),
    ("device", ("training", "device")),
    ("reservoir", ("reservoir", "policy")),
    ("its capacity in samples", ("reservoir", "capacity")),
    ("its threshold in samples", ("reservoir", "threshold")),
    ("draws of a sample, at most", ("reservoir", "draws_per_sample")),
    ("segment in steps", ("stream", "segment_steps")),
    ("stop", ("stop",)),
    ("fields kept", ("keep",)),
    ("security", ("security", "mode")),
)


def campaign_section(run: Run) -> Section:
    """Settings, the box of inputs, fields, and the file itself."""
    blocks: list[Block] = [
        Table("Settings, with defaults filled in", ("setting", "value"), settings([run]), n_text=2),
        *inputs(run),
        fields(run),
        Code(run.toml, "The campaign file as it was resolved"),
    ]
    return Section("The campaign", blocks)


def settings(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """One row a setting that some run has, one column a run."""
    rows = []
    for label, keys in SETTINGS:
        values = [at(run.campaign, *keys) for run in runs]
        if any(value not in (None, {}, "") for value in values):
            rows.append((label, *(plain(value) for value in values)))
    return rows


def inputs(run: Run) -> list[Block]:
    """The box that inputs are drawn from."""
    rows = []
    for name, spec in table(run.campaign, "design", "parameters").items():
        low, high, choices = at(spec, "low"), at(spec, "high"), at(spec, "choices")
        box = plain(choices) if choices else f"{plain(low)} to {plain(high)}"
        rows.append((name, box, plain(at(spec, "distribution"))))
    if not rows:
        return []
    return [Table("Inputs of a simulation", ("parameter", "range", "distribution"), rows, n_text=3)]


def fields(run: Run) -> Table:
    """What is streamed."""
    rows = []
    for name, spec in table(run.campaign, "fields").items():
        shape = " x ".join(str(n) for n in at(spec, "shape") or ()) or "one number"
        every = int(number(spec, "every") or 1)
        taken = "every step" if every == 1 else f"every {every}th step"
        cut = ", ".join(
            f"{key} {plain(spec[key])}"
            for key in ("crop", "stride", "keep_components")
            if spec.get(key) is not None
        )
        rows.append(
            (
                name,
                plain(at(spec, "unit")) or "none",
                plain(at(spec, "role")),
                shape,
                plain(at(spec, "components")),
                plain(at(spec, "dtype")),
                f"{taken}, {cut}" if cut else taken,
            )
        )
    header = ("field", "unit", "role", "shape", "components", "dtype", "streamed")
    return Table("Fields", header, rows, n_text=7)


def plain(value: Any) -> str:
    """A value of the campaign file as a person writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(entry, str) for entry in value):
            return " ".join(value)
        return ", ".join(
            f"({plain(entry)})" if isinstance(entry, (list, tuple)) else plain(entry)
            for entry in value
        )
    return str(value)
