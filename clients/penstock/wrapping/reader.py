"""From the files in the run's folder to steps with times and fields; the run sends them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from penstock.wrapping.formats import FormatError, lengths, read
from penstock.wrapping.outputs import files, number
from penstock.wrapping.settings import Wrapping
from penstock.wrapping.steps import OutputError, Step, Steps


class Found(NamedTuple):
    """One step that can be sent; `done_with` are the files that hold nothing else."""

    t: float | None
    fields: dict[str, np.ndarray]
    done_with: set[str]


class Reader:
    """Reads what one run of the program has completed; shapes: of the fields, where known."""

    def __init__(
        self, wrapping: Wrapping, folder: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.n_steps = 0
        self._wrapping, self._folder, self._shapes = wrapping, folder, shapes
        self._steps = Steps(
            [output for output in wrapping.outputs if output.one_a_step],
            wrapping.done,
            wrapping.at_once,
        )
        self._waiting: list[Step] = []  # complete, but other fields come in files with all steps
        self._series_read = False
        self._times: np.ndarray | None = None
        if wrapping.times is not None and wrapping.times_are_given:
            self._times = read(folder / wrapping.times.pattern, wrapping.times.select).reshape(-1)

    def look(self, ended: bool) -> Iterator[Found]:
        """The steps that are complete and have not been given yet; ended: the program has, well.

        Raises OutputError or FormatError when the files are not what was said of them.
        """
        wrapping = self._wrapping
        there = {o.pattern: files(self._folder, o.pattern) for o in wrapping.outputs}
        markers = files(self._folder, wrapping.done) if wrapping.done else []
        steps = self._steps.take(there, markers, ended)
        if not wrapping.series:
            yield from map(self._found, steps)
            return
        self._waiting += steps
        marked = bool(markers) and "*" not in (wrapping.done or "")
        if (ended or marked) and not self._series_read:
            self._series_read = True
            yield from self._all_steps()

    def check_end(self) -> None:
        """After the end: whether the steps came that should have. Raises OutputError."""
        steps = self._wrapping.steps
        if self.n_steps == 0:
            patterns = ", ".join(output.pattern for output in self._wrapping.outputs)
            there = sorted(path.name for path in self._folder.iterdir())[:12]
            raise OutputError(
                f"The program ended, and no file matches {patterns}. Its folder holds "
                f"{', '.join(there) or 'nothing'}."
            )
        if steps is not None and self.n_steps != steps:
            raise OutputError(
                f"The program ended after {self.n_steps} steps; {steps} were announced (--steps)."
            )

    def _all_steps(self) -> Iterator[Found]:
        """The arrays have the step on their first axis; files with one step each go along."""
        series: dict[str, np.ndarray] = {}
        for output in self._wrapping.series:
            path = self._folder / output.pattern
            if not path.is_file():
                raise OutputError(f"The program ended, and there is no file {output.pattern}.")
            values = read(path, output.select)
            # Of a steady problem a file holds the field and no axis of steps.
            series[output.field] = values[None] if self._wrapping.one_state else values
        for output in self._wrapping.series:  # two fields may be in one file
            (self._folder / output.pattern).unlink(missing_ok=True)
        n_steps = lengths(series)
        if self._wrapping.times is not None and not self._wrapping.times_are_given:
            self._times = series.pop(self._wrapping.times.field).reshape(-1)
        steps = self._waiting or [Step((), {}) for _ in range(n_steps)]
        if len(steps) != n_steps:
            raise OutputError(
                f"There are {len(steps)} files with one step each, and {n_steps} steps in "
                f"{self._wrapping.series[0].pattern}."
            )
        for k, step in enumerate(steps):
            found = self._found(step)
            fields = {name: self._shaped(name, values[k]) for name, values in series.items()}
            yield found._replace(fields={**found.fields, **fields})

    def _found(self, step: Step) -> Found:
        k, self.n_steps = self.n_steps, self.n_steps + 1
        if self._wrapping.steps is not None and self.n_steps > self._wrapping.steps:
            raise OutputError(
                f"The program wrote more steps than the {self._wrapping.steps} that were announced "
                "(--steps)."
            )
        selects = {output.field: output.select for output in self._wrapping.outputs}
        fields = {
            field: self._shaped(field, read(self._folder / name, selects[field]))
            for field, name in step.files.items()
        }
        return Found(self._time(k, step), fields, set(step.files.values()))

    def _time(self, k: int, step: Step) -> float | None:
        """By the file of times; else the number in the name, or that of the step, counted in dt."""
        wrapping = self._wrapping
        if self._times is not None:
            if k >= len(self._times):
                assert wrapping.times is not None
                raise FormatError(f"{wrapping.times.pattern} has no time for step {k}.")
            return float(self._times[k])
        if wrapping.one_state and wrapping.dt is None:
            return None
        count = number(step.key)
        dt = 1.0 if wrapping.dt is None else wrapping.dt
        return wrapping.t0 + dt * (k if math.isnan(count) else count)

    def _shaped(self, field: str, values: np.ndarray) -> np.ndarray:
        """A flat array in the campaign's shape, in C order: tables and meshes know no grid."""
        shape = self._shapes.get(field)
        flat = values.ndim == 1 and shape is not None and values.size == math.prod(shape)
        return values.reshape(shape) if flat and shape is not None else values
