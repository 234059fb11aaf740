"""The processes that descend from a started command, read from /proc; the agent watches by it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

_PROC = Path("/proc")
_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Process:
    """One line of the process table; `state` is the letter that ps shows (T: stopped, Z: dead)."""

    pid: int
    parent: int
    session: int
    state: str

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"


def processes() -> dict[int, Process]:
    """Every process that is visible now, by its id; empty where there is no /proc."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended while we read
        state, parent, _group, session = after_name[:4]
        pid = int(folder.name)
        found[pid] = Process(pid, int(parent), int(session), state.decode())
    return found


def family(
    table: dict[int, Process], roots: Iterable[int], sessions: Iterable[int]
) -> list[Process]:
    """The roots, their descendants and the members of the sessions, parents before children.

    MPI ranks have process groups of their own, daemons have sessions of their own: tree and
    session together find both.
    """
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    wanted_sessions = set(sessions)
    queue = [pid for pid in roots if pid in table]
    queue += [pid for pid, process in table.items() if process.session in wanted_sessions]
    seen: dict[int, Process] = {}
    for pid in queue:  # grows while it is walked
        if pid not in seen:
            seen[pid] = table[pid]
            queue += children.get(pid, [])
    return list(seen.values())


def marked(table: dict[int, Process], mark: str) -> list[int]:
    """The processes whose environment holds `mark` ("NAME=value"); survives any daemonising."""
    found = []
    for pid in table:
        try:
            if mark.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue  # ended, or another user's
    return found


def kill_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Signals each process; TERM wakes stopped ones afterwards, which otherwise could not die."""
    for pid in pids:
        try:
            os.kill(pid, number)
            if number != signal.SIGKILL:
                os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, PermissionError):
            continue


def dying_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A function that makes the calling process receive `number` when its parent thread ends.

    Made before a fork and called after it: nothing is imported in between.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_DIE_WITH_PARENT, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before we were bound to it
            os.kill(os.getpid(), number)

    return bind


def kept_from_running_s() -> float:
    """For how long the calling thread was ready and had no processor; 0.0 where nobody knows."""
    try:
        descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        try:
            return int(os.read(descriptor, 100).split()[1]) / 1e9
        finally:
            os.close(descriptor)
    except (OSError, IndexError):
        return 0.0


def die_with_parent(number: signal.Signals) -> None:
    """Makes this process receive `number` when the one that started it ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Makes orphaned descendants children of this process, so that its tree stays whole."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
