"""The process group of one worker, with all that descends from it; its agent owns it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from penstock.processes import (
    Process,
    dying_with_parent,
    family,
    kill_all,
    marked,
    processes,
)

TAIL_BYTES = 8192
GRACE_S = 3.0  # between TERM and KILL; mpirun itself takes one second to end its ranks
NOT_FOUND, NOT_STARTED = 127, 126  # what a shell answers for such commands
MAY_HALT = "PENSTOCK_MAY_HALT=1"  # in a program's environment: its wrapper stops it while it waits


class Group:
    """A solver command that was started for one worker.

    Its stderr goes to WORKER.log, its stdout to WORKER.out in `log_dir`. Call `watch` often; after
    `finished` no process of it is left and `exit_code` (negative: ended by that signal) stands.
    """

    def __init__(
        self,
        command: Sequence[str],
        worker: str,
        environment: Mapping[str, str],
        log_dir: Path,
        keeper: Keeper,
    ) -> None:
        self.worker = worker
        self.log = log_dir / f"{worker}.log"
        self.pid = 0
        self.exit_code: int | None = None
        self.finished = False
        self._keeper = keeper
        self._kill_at: float | None = None
        self._stopped_since: dict[int, float] = {}
        self._process: subprocess.Popen[bytes] | None = None
        log_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as stderr, (log_dir / f"{worker}.out").open("ab") as stdout:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env={**os.environ, **environment},
                    start_new_session=True,
                    preexec_fn=dying_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no threads
                )
            except (OSError, subprocess.SubprocessError) as error:
                text = f"The solver command {command[0]!r} could not be started: {error}.\n"
                stderr.write(text.encode())
                missing = isinstance(error, FileNotFoundError)
                self.exit_code = NOT_FOUND if missing else NOT_STARTED
                self.finished = True
                return
        self.pid = self._process.pid
        keeper.note(self.pid)

    @property
    def stopped_s(self) -> float:
        """For how long a process of it has been stopped (SIGSTOP) without a break."""
        now = time.monotonic()
        return max((now - since for since in self._stopped_since.values()), default=0.0)

    @property
    def ending(self) -> bool:
        """Whether `end` was called and some of it may still be there."""
        return self._kill_at is not None and not self.finished

    def exited(self) -> bool:
        """Whether the command itself has ended; cheap."""
        if self.exit_code is None and self._process is not None:
            self.exit_code = self._process.poll()
        return self.exit_code is not None

    def watch(self) -> None:
        """Look at all of its processes: who is stopped, and, while it ends, who is still there."""
        if self.finished:
            return
        alive = self._alive()
        if self.exited():
            self.end()
            self.finished = not alive
        now = time.monotonic()
        halted = {process.pid: process for process in alive if process.state == "T"}
        stopped = set(halted).difference(marked(halted, MAY_HALT) if halted else ())
        self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        if self._kill_at is not None and now >= self._kill_at:
            kill_all((process.pid for process in alive), signal.SIGKILL)

    def end(self) -> None:
        """Begin to end all of its processes; `watch` then goes on with it. May be called twice."""
        if self._kill_at is None and not self.finished:
            self._kill_at = time.monotonic() + GRACE_S
            kill_all((process.pid for process in self._alive()), signal.SIGTERM)

    def tail(self) -> str:
        """The last 8 kB of its stderr."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                return log.read(TAIL_BYTES).decode(errors="replace")
        except OSError as error:
            return f"(the log {self.log} cannot be read: {error})"

    def _alive(self) -> list[Process]:
        """Its living processes; buries the dead ones that became our children.

        Orphans are adopted by the agent, so whatever descends from it, its keeper apart, is ours.
        """
        table = processes()
        if not table:  # no /proc here: the command alone is what we see
            return [] if self.exited() else [Process(self.pid, os.getpid(), self.pid, "S")]
        roots = []
        for process in table.values():
            if process.parent == os.getpid() and process.pid != self._keeper.pid:
                roots.append(process.pid)
                if not process.alive and process.pid != self.pid:
                    os.waitpid(process.pid, os.WNOHANG)
        return [process for process in family(table, roots, [self.pid]) if process.alive]


class Keeper:
    """A forked process that outlives its agent by seconds: if the agent dies, it ends the group.

    The kernel tells the command itself of the agent's death (PR_SET_PDEATHSIG); its children learn
    it from here: the mpirun under a shell script, and the ranks of an mpirun that was terminated in
    its first moments, which Open MPI 4.1 leaves behind. Start it before any thread or ZeroMQ
    context. `folder`, if given, is removed after them: it is in memory.
    """

    def __init__(self, mark: str, folder: str = "") -> None:
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._writing)
                _keep(reading, mark, folder)
            finally:
                os._exit(1)  # never into the agent's own code
        os.close(reading)

    def note(self, session: int) -> None:
        """The session of the command that is now to be kept."""
        os.write(self._writing, f"{session}\n".encode())

    def close(self) -> None:
        """Let it go, after the command has ended; may be called twice."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            os.kill(self.pid, signal.SIGKILL)  # somebody may have stopped it
            os.waitpid(self.pid, 0)


def _keep(reading: int, mark: str, folder: str) -> NoReturn:
    os.setsid()  # what is sent to the agent's group must not reach us
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    noted = b""
    while True:
        data = os.read(reading, 4096)
        if not data:
            break
        noted += data
    sessions = [int(line) for line in noted.split()[-1:]]  # of earlier commands nothing is left
    kill_at = time.monotonic() + GRACE_S
    number = signal.SIGTERM
    while True:
        table = processes()
        left = [p for p in family(table, marked(table, mark), sessions) if p.alive]
        if folder:  # at every turn: who keeps this process may not wait as long as it would
            shutil.rmtree(folder, ignore_errors=True)
        if not left or time.monotonic() > kill_at + GRACE_S:
            os._exit(0)
        if number == signal.SIGTERM or time.monotonic() >= kill_at:
            kill_all((process.pid for process in left), number)
            number = signal.SIGKILL
        time.sleep(0.05)
