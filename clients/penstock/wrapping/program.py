"""The wrapped program at work, with everything that it starts; owned by the run of a simulation."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from penstock.group import GRACE_S, MAY_HALT, Keeper
from penstock.processes import dying_with_parent, family, kill_all, marked, processes

LAST_WORDS = 4096  # bytes that are kept of each stream
INCARNATION = "PENSTOCK_INCARNATION"
NO_SESSION = -1


class Program:
    """Started at once, in a session of its own; leaving the context ends all of its processes.

    `mark` is "NAME=value", put into its environment, by which even daemons of it are found. Raises
    OSError when it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, stdin: str | None, mark: str, keeper: Keeper
    ) -> None:
        self._mark, self._keeper = mark, keeper
        self.began_s = time.monotonic()
        self.halted = False
        with (folder / stdin if stdin else Path(os.devnull)).open("rb") as given:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(os.environ, mark),
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no threads
            )
        keeper.note(self._process.pid)
        self._streams = [
            _Stream(self._process.stderr, sys.stderr.fileno()),
            _Stream(self._process.stdout, sys.stdout.fileno()),
        ]

    @property
    def exit_code(self) -> int | None:
        """Negative: ended by that signal. None: it runs."""
        return self._process.returncode

    def ended(self, wait_s: float) -> bool:
        """Whether it has ended; waits for it so long, and passes on what it says."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        for stream in self._streams:
            stream.pass_on()
        return self._process.returncode is not None

    def last_words(self, n_lines: int = 8) -> str:
        """The end of its stderr, or of its stdout when it said nothing there."""
        said = next((s.tail for s in self._streams if s.tail.strip()), b"")
        return "\n".join(said.decode(errors="replace").strip().splitlines()[-n_lines:])

    def halt(self) -> None:
        """Stops all of its processes until `resume`; the agent knows that this may happen."""
        self.halted = True
        for pid in self._alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.halted:
            self.halted = False
            kill_all(self._alive(), signal.SIGCONT)

    def end(self) -> None:
        """TERM, and KILL after a while, until no process of it is left; may be called twice."""
        number, began = signal.SIGTERM, time.monotonic()
        while True:
            self._process.poll()
            alive = self._alive()
            if not alive or time.monotonic() - began > 2 * GRACE_S:
                break
            kill_all(alive, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
            if self._process.returncode is not None:
                time.sleep(0.01)  # of its children nobody tells us
            if time.monotonic() - began > GRACE_S:
                number = signal.SIGKILL
        self._keeper.note(NO_SESSION)  # its number may be given to others from now on

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        for stream in self._streams:
            stream.close()

    def _alive(self) -> list[int]:
        table = processes()
        if not table:  # no /proc here: the command alone is what we see
            return [] if self._process.poll() is not None else [self._process.pid]
        own = self._process.pid
        members = family(table, [own, *marked(table, self._mark)], [own])
        return [process.pid for process in members if process.alive]


class _Stream:
    """A pipe from the program: passed on as it comes, with the end of it kept for the reason.

    Nobody reads while a step is being sent; the program then waits once its pipe is full.
    """

    def __init__(self, pipe: IO[bytes] | None, target: int) -> None:
        assert pipe is not None
        self._pipe, self._target = pipe, target
        self.tail = b""
        os.set_blocking(pipe.fileno(), False)

    def pass_on(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self._pipe.read(1 << 16):
                self.tail = (self.tail + data)[-LAST_WORDS:]
                with contextlib.suppress(OSError):  # a log that is full or closed stops nothing
                    os.write(self._target, data)

    def close(self) -> None:
        self.pass_on()
        self._pipe.close()


def _environment(inherited: Mapping[str, str], mark: str) -> dict[str, str]:
    """Without address and keys: were the program to use the client too, it would take our
    simulations. What its agent finds it by stays.
    """
    own = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("PENSTOCK_") or name == INCARNATION
    }
    for setting in (mark, MAY_HALT):
        name, _, value = setting.partition("=")
        own[name] = value
    return own
