"""Which steps are complete, from the names in the folder; pure, asked by the run at every look.

A file is complete when the next one of its pattern has appeared, when the program has ended well,
or, if a marker was agreed on, when the marker is there. The last file of a running program is
therefore never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.wrapping.outputs import Key, Output, key


class OutputError(ValueError):
    """The program did not write what it was wrapped for; the text says what is missing."""


@dataclass(frozen=True)
class Step:
    """One complete step; files: field -> name."""

    key: Key
    files: Mapping[str, str]


class Steps:
    """The steps of one run for outputs with one file a step, each given out once and in order."""

    def __init__(self, outputs: Sequence[Output], done: str | None, at_once: bool) -> None:
        self._outputs = outputs
        self._done = done
        self._at_once = at_once
        self._last: Step | None = None  # that was given out
        self.waiting: list[str] = []  # names that belong to no complete step yet

    def take(
        self, names: Mapping[str, Sequence[str]], markers: Sequence[str], ended: bool
    ) -> list[Step]:
        """The steps that have become complete; names: pattern -> files that are there now.

        Raises OutputError for files out of order, twice the same step, and, when the program has
        ended, for steps that lack a field.
        """
        found = {
            output.field: self._sorted(output, names[output.pattern]) for output in self._outputs
        }
        every = sorted({k for files in found.values() for k in files})
        if self._last is not None and every and every[0] <= self._last.key:
            late = next(files[every[0]] for files in found.values() if every[0] in files)
            sent = next(iter(self._last.files.values()))
            raise OutputError(
                f"The file {late} came after {sent} had been sent. The numbers in the names have "
                "to grow with the steps, and no step is written twice."
            )
        complete = {field: self._complete(files, markers, ended) for field, files in found.items()}
        steps: list[Step] = []
        for k in every:
            if not all(k in keys for keys in complete.values()):
                break
            steps.append(Step(k, {field: files[k] for field, files in found.items()}))
        rest = every[len(steps) :]
        self.waiting = [files[k] for k in rest for files in found.values() if k in files]
        if ended and rest:
            lacking = [field for field, files in found.items() if rest[0] not in files]
            raise OutputError(
                f"The program ended, and the step of {self.waiting[0]} lacks the field"
                f"{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}."
            )
        if steps:
            self._last = steps[-1]
        return steps

    def _complete(self, files: Mapping[Key, str], markers: Sequence[str], ended: bool) -> set[Key]:
        if ended or self._at_once:
            return set(files)
        if self._done is None:
            return set(sorted(files)[:-1])
        if "*" not in self._done:
            return set(files) if markers else set()
        marked = {key(self._done, marker) for marker in markers}
        return {k for k in files if k in marked}

    def _sorted(self, output: Output, names: Sequence[str]) -> dict[Key, str]:
        found: dict[Key, str] = {}
        for name in sorted(names):
            k = key(output.pattern, name)
            if k is None:
                continue
            if k in found:
                raise OutputError(f"{found[k]} and {name} are the same step of {output.field}.")
            found[k] = name
        return found
