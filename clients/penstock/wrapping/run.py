"""One simulation by the wrapped program: fill in, start, watch, send each step, clean up."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from penstock.group import Keeper
from penstock.simulation import Simulation
from penstock.wrapping.brake import Brake
from penstock.wrapping.program import Program
from penstock.wrapping.reader import Reader
from penstock.wrapping.scratch import free_bytes, memory_of
from penstock.wrapping.settings import Wrapping
from penstock.wrapping.template import Value

QUICKEST_S, SLOWEST_S = 0.005, 0.1  # between two looks: quick after a find, then slower and slower
NO_MEMORY = 1 << 20  # free bytes below which a failure is blamed on the memory
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)


class ProgramError(RuntimeError):
    """The program failed for this simulation; the text is the reason that the report shows."""


class ProgramKilled(ProgramError):
    """Somebody else ended the program, perhaps for want of memory; no fault of the simulation."""


class Run:
    """One run in `folder`; `mark` and `keeper` are what its processes are found and ended by."""

    def __init__(
        self, wrapping: Wrapping, sim: Simulation, folder: Path, mark: str, keeper: Keeper
    ) -> None:
        self._wrapping, self._sim, self._folder = wrapping, sim, folder
        self._mark, self._keeper = mark, keeper

    def carry_out(self, values: Mapping[str, Value], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Runs the program and sends its steps; returns early when the server wants no more.

        Raises ProgramError, OutputError, FormatError, TemplateError, LayoutError or OSError with
        the reason for which the simulation fails.
        """
        wrapping, sim = self._wrapping, self._sim
        command = prepare(wrapping, self._folder, values)
        reader = Reader(wrapping, self._folder, shapes)
        pause_s, ended = QUICKEST_S, False
        program = Program(command, self._folder, wrapping.stdin, self._mark, self._keeper)
        with program, Brake(program, self._folder, wrapping.room_bytes) as brake:
            while not (ended or sim.cancelled):
                ended = program.ended(pause_s)
                if ended and program.exit_code:
                    raise self._failure(program)
                sent = self._send(reader, brake, ended)
                pause_s = QUICKEST_S if sent else min(SLOWEST_S, 1.5 * pause_s)
                if not ended:
                    self._check_time(program, brake)
                if not (ended or sent):  # what is complete by now may be more than was
                    brake.release()
                    self._check_room()
        if not sim.cancelled:
            reader.check_end()

    def _send(self, reader: Reader, brake: Brake, ended: bool) -> bool:
        """Sends what is complete, whose files end with it; whether there was something."""
        sent = False
        for t, fields, done_with in reader.look(ended):
            with brake.sending():
                self._sim.send(t, **fields)
            for name in done_with:
                (self._folder / name).unlink(missing_ok=True)
            sent = True
            if self._sim.cancelled:
                break
        return sent

    def _check_time(self, program: Program, brake: Brake) -> None:
        limit_s = self._wrapping.timeout_s
        took_s = time.monotonic() - program.began_s - brake.waited_s
        if limit_s is not None and took_s > limit_s:
            raise ProgramError(
                f"{self._name} had not ended after {limit_s:g} s (--timeout){self._words(program)}"
            )

    def _check_room(self) -> None:
        used, room = memory_of(self._folder), self._wrapping.room_bytes
        if used > room:
            raise ProgramError(
                f"{self._name} has {used / 1e6:.0f} MB in its folder and none of it is a complete "
                f"step; {room / 1e6:.0f} MB are allowed (--room)."
            )

    def _failure(self, program: Program) -> ProgramError:
        code = program.exit_code or 0
        how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        full = "; the memory was full" if free_bytes(self._folder) < NO_MEMORY else ""
        kind = ProgramKilled if code in FROM_OUTSIDE else ProgramError
        return kind(f"{self._name} ended by {how}{full}{self._words(program)}")

    @property
    def _name(self) -> str:
        return self._wrapping.program

    def _words(self, program: Program) -> str:
        words = program.last_words()
        return f":\n{words}" if words else ", and said nothing."


def prepare(wrapping: Wrapping, folder: Path, values: Mapping[str, Value]) -> list[str]:
    """Writes the filled templates and the links into the folder; returns the filled command."""
    for name, target in wrapping.links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    for name, template in wrapping.templates.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", encoding="utf-8", errors="surrogateescape", newline="") as f:
            f.write(template.fill(values))
    return [word.fill(values) for word in wrapping.command]
