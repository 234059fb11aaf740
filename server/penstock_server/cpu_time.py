"""Core-seconds of a run's processes by what they do; sampled, because processes come and go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

import psutil

GROUPS = ("solvers", "training", "server")


class CpuTime:
    """The supervisor's; what a process used after the last look at it is not counted."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, float], tuple[str, float]] = {}  # (pid, birth) -> group, s

    def look(self, roots: Mapping[str, Iterable[int]]) -> None:
        """roots: group -> process ids; all below them belongs to it, the rest to the server."""
        owner = {pid: group for group, pids in roots.items() for pid in pids}
        me = psutil.Process()
        parents: dict[int, int] = {}
        everyone = [me, *me.children(recursive=True)]
        for process in everyone:
            with contextlib.suppress(psutil.Error):
                parents[process.pid] = process.ppid()
        for process in everyone:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                group = _group(process.pid, parents, owner)
                key = process.pid, process.create_time()
                if group == "server" and key in self._used:
                    group = self._used[key][0]  # it is nobody's any more, and still ending
                self._used[key] = group, times.user + times.system

    def seconds(self) -> dict[str, float]:
        """Core-seconds of each of GROUPS, and of "all"."""
        sums = dict.fromkeys(GROUPS, 0.0)
        for group, seconds in self._used.values():
            sums[group] += seconds
        return {name: round(s, 2) for name, s in {**sums, "all": sum(sums.values())}.items()}


def _group(pid: int, parents: Mapping[int, int], owner: Mapping[int, str]) -> str:
    at: int | None = pid
    while at is not None:
        if at in owner:
            return owner[at]
        at = parents.get(at)
    return "server"
