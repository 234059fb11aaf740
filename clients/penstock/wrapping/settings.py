"""What `penstock wrap` was asked for; its command line makes it, the worker reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import PenstockError
from penstock.wrapping.outputs import Output
from penstock.wrapping.template import Template


class WrapError(PenstockError):
    """What was asked for makes no sense here; said once, before the first run of the program."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Wrapping:
    """How the program is run and what is read of it; all relative names are the run's folder's."""

    program: str  # as messages call it
    command: tuple[Template, ...]
    templates: Mapping[str, Template]  # name of the file that is written -> what is written
    links: Mapping[str, Path]  # name of the link -> what it points to
    outputs: tuple[Output, ...]
    stdin: str | None = None
    done: str | None = None  # marker file that says that an output is complete
    at_once: bool = False
    times: Output | None = None
    t0: float = 0.0
    dt: float | None = None  # None: a time is the number in the file's name
    steps: int | None = None
    timeout_s: float | None = None
    memory: Path = Path("/dev/shm")
    room_bytes: int = 1 << 30
    parameters: Mapping[str, float] | None = None  # of a run without a campaign

    @property
    def texts(self) -> tuple[Template, ...]:
        """Everything that holds placeholders."""
        return (*self.command, *self.templates.values())

    @property
    def times_are_given(self) -> bool:
        """Whether the file of times is there before the program starts."""
        return self.times is not None and self.times.pattern in {*self.templates, *self.links}

    @property
    def series(self) -> tuple[Output, ...]:
        """The files that hold all steps; nothing can be sent before they are complete."""
        whole = tuple(output for output in self.outputs if not output.one_a_step)
        return whole if self.times is None or self.times_are_given else (*whole, self.times)

    @property
    def one_state(self) -> bool:
        """Whether a file without a step in its name is the step itself: a steady problem."""
        return self.steps == 1
