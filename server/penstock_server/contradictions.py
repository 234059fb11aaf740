"""Settings that are each valid and together impossible; called by `config` before anything starts.

Settings that would leave both sides waiting for ever are refused here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from penstock_server.config import Campaign
    from penstock_server.tables import FieldSpec, Parameter


class Conflict(NamedTuple):
    key: str  # dotted, relative to the table that was checked; "" is the table itself
    sentence: str


def parameter_conflicts(p: Parameter) -> Iterator[Conflict]:
    if p.distribution == "choice":
        if p.low is not None or p.high is not None:
            yield Conflict("low", 'distribution = "choice" takes `choices`, no low and high.')
        if not p.choices:
            yield Conflict("choices", 'distribution = "choice" needs choices = [a, b, ..].')
    elif p.choices:
        yield Conflict("choices", '`choices` needs distribution = "choice".')
    elif p.low is None or p.high is None:
        missing = " and ".join(k for k in ("low", "high") if getattr(p, k) is None)
        verb = "are" if "and" in missing else "is"
        yield Conflict(
            "", f"A {p.distribution} parameter needs low and high; {missing} {verb} missing."
        )
    elif p.low >= p.high:
        yield Conflict("low", f"low must be below high, got low = {p.low:g}, high = {p.high:g}.")
    elif p.distribution == "log-uniform" and p.low <= 0:
        yield Conflict("low", f"A log-uniform parameter needs low > 0, got {p.low:g}.")
    elif p.distribution == "integer" and not (p.low.is_integer() and p.high.is_integer()):
        yield Conflict(
            "low", f"An integer parameter needs whole bounds, got {p.low:g}, {p.high:g}."
        )


def field_conflicts(f: FieldSpec) -> Iterator[Conflict]:
    if f.components > 1 and (not f.shape or f.shape[-1] != f.components):
        yield Conflict(
            "components",
            f"components = {f.components} is the length of the last axis, "
            f"but shape = {list(f.shape)}.",
        )
        return
    if f.range is not None and f.range[0] >= f.range[1]:
        yield Conflict("range", f"range is [least, greatest], got {list(f.range)}.")
    axes = len(f.grid_shape)
    if f.crop is not None and len(f.crop) != axes:
        yield Conflict(
            "crop", f"crop needs {axes} pairs [start, stop], one an axis, got {len(f.crop)}."
        )
    elif f.crop is not None:
        for axis, ((start, stop), length) in enumerate(zip(f.crop, f.grid_shape, strict=True)):
            if not start < stop <= length:
                yield Conflict(
                    "crop",
                    f"crop of axis {axis} must satisfy 0 <= start < stop <= {length}, "
                    f"got [{start}, {stop}].",
                )
    if f.stride is not None and len(f.stride) != axes:
        yield Conflict("stride", f"stride needs {axes} numbers, one an axis, got {len(f.stride)}.")
    elif f.stride is not None:
        for axis, (step, length) in enumerate(zip(f.stride, f.grid_shape, strict=True)):
            if step > length:
                yield Conflict("stride", f"stride of axis {axis} is {step}, its length {length}.")
    kept = f.keep_components
    if kept is not None and f.components == 1:
        yield Conflict("keep_components", "keep_components needs components > 1.")
    elif kept is not None and (
        not kept or len(set(kept)) != len(kept) or max(kept) >= f.components
    ):
        yield Conflict(
            "keep_components",
            f"keep_components takes different numbers from 0 to {f.components - 1}, "
            f"got {list(kept)}.",
        )
    if f.role == "input" and f.every != 1:
        yield Conflict("every", "An input field is sent once per simulation; leave out `every`.")


def contradictions(c: Campaign) -> Iterator[Conflict]:
    """What the tables of a campaign cannot have together."""
    yield from _solver(c)
    yield from _design(c)
    yield from _fields(c)
    yield from _stream(c)
    yield from _reservoir(c)
    yield from _training(c)
    yield from _stored(c)


def _solver(c: Campaign) -> Iterator[Conflict]:
    if c.solver.steps is None and c.solver.max_steps is None:
        yield Conflict(
            "solver", "[solver] needs steps, or max_steps if the number of steps is not known."
        )
    if c.solver.steps is not None and c.solver.max_steps is not None:
        yield Conflict("solver.max_steps", "[solver] takes steps or max_steps, not both.")
    live = c.liveness
    if live.silence_s < 3 * live.beat_s:
        yield Conflict(
            "liveness.silence_s",
            f"silence_s must be at least three beats, 3 x {live.beat_s:g} s, "
            f"got {live.silence_s:g}; a late beat would be taken for a death.",
        )


def _design(c: Campaign) -> Iterator[Conflict]:
    design = c.design
    own = ":" in design.sampler
    if not design.parameters and not c.input_fields and not own:
        yield Conflict(
            "design",
            "Nothing distinguishes the simulations: declare at least one parameter in "
            '[design.parameters], or an input field, or a sampler "module:Class".',
        )
    if design.sampler == "csv" and design.file is None:
        yield Conflict("design.sampler", 'sampler = "csv" needs file = "points.csv" in [design].')
    elif design.sampler == "csv" and not Path(str(design.file)).is_file():
        yield Conflict("design.file", f"The file of points {design.file} does not exist.")
    elif design.file is not None and design.sampler != "csv" and not own:
        yield Conflict(
            "design.file", f'`file` needs sampler = "csv", got sampler = "{design.sampler}".'
        )
    if c.stop.target_error is not None and design.validation == 0:
        yield Conflict(
            "stop.target_error", "target_error needs validation simulations: design.validation."
        )


def _fields(c: Campaign) -> Iterator[Conflict]:
    if not any(f.role in ("state", "quantity") for f in c.fields.values()):
        roles = ", ".join(f"{n}: {f.role}" for n, f in c.fields.items())
        yield Conflict(
            "fields",
            f'Training needs at least one field with role "state" or "quantity", got {roles}.',
        )
    if len({f.every for f in c.step_fields.values()}) > 1:
        given = ", ".join(f"{n}: {f.every}" for n, f in c.step_fields.items())
        yield Conflict(
            "fields", f"All fields of a step travel together and need one `every`, got {given}."
        )
    if "t" in c.fields:
        yield Conflict("fields.t", "A field cannot be called t, the name of the time in send.")


def _stream(c: Campaign) -> Iterator[Conflict]:
    length, sent = c.stream.segment_steps, c.steps_sent
    if length > sent:
        yield Conflict(
            "stream.segment_steps",
            f"segment_steps = {length} is more than the {sent} steps that a simulation sends; "
            "no segment would ever be full.",
        )
    step_bytes = sum(f.sent_bytes for f in c.step_fields.values())
    part_bytes = math.ceil(step_bytes / c.solver.mpi_ranks)
    if c.stream.window_bytes < part_bytes:
        yield Conflict(
            "stream.window_bytes",
            f"window_bytes = {c.stream.window_bytes} does not hold one rank's part of a step, "
            f"about {part_bytes} bytes; the sender would wait for ever.",
        )


def _reservoir(c: Campaign) -> Iterator[Conflict]:
    reservoir, training = c.reservoir, c.training
    batch = training.global_batch
    product = f"ranks x batch_size = {training.ranks} x {training.batch_size} = {batch}"
    slots = reservoir.capacity // training.ranks // max(1, c.samples_per_segment)
    if reservoir.capacity < batch:
        yield Conflict(
            "reservoir.capacity",
            f"capacity must be at least {product}, got {reservoir.capacity}; "
            "no batch could be filled, because no sample comes twice in one.",
        )
    elif reservoir.capacity <= reservoir.threshold:
        yield Conflict(
            "reservoir.capacity",
            f"capacity must be above threshold = {reservoir.threshold}, "
            f"got {reservoir.capacity}; training would never start.",
        )
    elif slots < c.solver.workers:
        yield Conflict(
            "reservoir.capacity",
            f"capacity = {reservoir.capacity} samples leave {slots} segments for each of "
            f"{training.ranks} ranks, fewer than the {c.solver.workers} workers, each of "
            "which holds one while it fills it.",
        )
    if reservoir.band < batch:
        yield Conflict(
            "reservoir.band",
            f"band must be at least {product}, got {reservoir.band}; "
            "the limiter would never let a batch through.",
        )
    ratio = reservoir.draws_per_sample
    if reservoir.policy in ("fifo", "firo") and ratio is not None and ratio != 1:
        yield Conflict(
            "reservoir.draws_per_sample",
            f'policy = "{reservoir.policy}" draws every sample once, so draws_per_sample can only '
            f"be 1 or left out, got {ratio:g}.",
        )


def _training(c: Campaign) -> Iterator[Conflict]:
    if c.training.window > c.stream.segment_steps:
        yield Conflict(
            "training.window",
            f"A sample lies inside one segment: window must be at most "
            f"stream.segment_steps = {c.stream.segment_steps}, got {c.training.window}.",
        )
    elif c.training.span > c.stream.segment_steps:
        yield Conflict(
            "training.stride",
            f"A sample lies inside one segment: {c.training.window} steps that are "
            f"{c.training.stride} apart span {c.training.span}, and stream.segment_steps is "
            f"{c.stream.segment_steps}.",
        )
    yield from _patch(c)
    if c.training.schedule == "cosine" and c.planned_batches is None:
        yield Conflict(
            "training.schedule",
            'schedule = "cosine" needs a known number of batches: set stop.batches, or '
            "solver.steps together with reservoir.draws_per_sample.",
        )


def _patch(c: Campaign) -> Iterator[Conflict]:
    patch = c.training.patch
    if patch is None:
        return
    grids = {name: spec.sent_grid for name, spec in c.step_fields.items()}
    cut = {name: grid for name, grid in grids.items() if len(grid) == len(patch)}
    if len(set(cut.values())) != 1:
        given = ", ".join(f"{name}: {list(grid)}" for name, grid in grids.items())
        yield Conflict(
            "training.patch",
            f"A patch of {len(patch)} axes is cut out of fields on one grid of as many axes; "
            f"the grids are {given}.",
        )
        return
    grid = next(iter(cut.values()))
    if any(extent > length for extent, length in zip(patch, grid)):
        yield Conflict(
            "training.patch", f"patch = {list(patch)} does not fit into the grid {list(grid)}."
        )
    if ":" not in c.training.surrogate and c.training.training_step is None:
        yield Conflict(
            "training.surrogate",
            f'"{c.training.surrogate}" predicts whole fields. With patch the surrogate is one of '
            'your own, "module:Class", that predicts what its input fields cover.',
        )
    elif c.training.training_step is None and all(
        grid != spec.sent_grid for spec in c.input_fields.values()
    ):
        yield Conflict(
            "training.patch",
            f"A network that is given no field on the grid {list(grid)} cannot know which patch "
            "to predict: send one as an input field (the coordinates will do), or set "
            "training_step, which gets the whole batch with its `origin`.",
        )


def _stored(c: Campaign) -> Iterator[Conflict]:
    dataset = c.offline.dataset
    if dataset is not None and c.mode != "offline":
        yield Conflict(
            "offline.dataset", f'`dataset` is trained on with mode = "offline", got "{c.mode}".'
        )
    elif dataset is not None and not Path(dataset).is_file():
        yield Conflict("offline.dataset", f"The data set {dataset} does not exist.")
    if c.mode == "offline":
        bound = (c.planned_batches, c.stop.seconds, c.stop.target_error)
        if all(limit is None for limit in bound):
            yield Conflict(
                "stop",
                'mode = "offline" has no stream that could end it: set stop.batches, stop.seconds '
                "or stop.target_error, or solver.steps together with reservoir.draws_per_sample.",
            )
        if c.reservoir.policy != "reservoir":
            yield Conflict(
                "reservoir.policy",
                f'policy = "{c.reservoir.policy}" orders a stream, and mode = "offline" has none.',
            )
    if c.mode != "online" and c.keep != "none":
        yield Conflict("keep", f'mode = "{c.mode}" stores every simulation; leave `keep` out.')
    given = c.training.normalisation
    if given is not None and not (Path(given) / "model.json").is_file():
        yield Conflict(
            "training.normalisation",
            f"{given} is not the folder of a model: it has no model.json.",
        )
