"""How processes grow while they live: samples from /proc, and slopes of them; for soak.py.

Memory is what a process has mapped that is in no file (Anonymous): slabs in shared memory belong to
nobody in it, and are looked at as files. A process that was started again begins a new life. The
slope of a role is the weighted median of the slopes between all pairs of samples of one life (Theil
and Sen, pooled over the lives; the weight is the time between the two), after each life's warm-up:
so many seconds, and its first quarter.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MEMORY, FILES, THREADS = "memory", "files", "threads"
MOST = 400  # samples of a life that are paired; of more, every n-th
APART = 0.25  # pairs are at least this share of the longest life apart
WARM_UP = 0.25  # share of a life that is not judged


@dataclass(frozen=True)
class Sample:
    seconds: float
    memory: int  # bytes
    resident: int  # bytes
    files: int
    threads: int


@dataclass
class Life:
    """One process, from its first sample to its last."""

    pid: int
    role: str
    samples: list[Sample] = field(default_factory=list)

    def after(self, warm_up_s: float) -> list[Sample]:
        """What is judged of it."""
        if not self.samples:
            return []
        begin_s, end_s = self.samples[0].seconds, self.samples[-1].seconds
        judged_s = begin_s + max(warm_up_s, WARM_UP * (end_s - begin_s))
        return [sample for sample in self.samples if sample.seconds >= judged_s]


class Watch:
    """Samples processes every so many seconds, in a thread, from `start` to `stop`.

    roles: process id -> role of whoever belongs to the run now. folders: role -> paths in memory,
    which are sampled together as that role.
    """

    def __init__(
        self,
        roles: Callable[[], Mapping[int, str]],
        folders: Callable[[], Mapping[str, Iterable[Path]]],
        period_s: float,
    ) -> None:
        self._roles, self._folders, self._period_s = roles, folders, period_s
        self._lives: dict[tuple[int, int], Life] = {}  # (pid, ticks at birth)
        self._stored: dict[str, Life] = {}  # of folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.shared: set[Path] = set()  # files in shared memory that anybody has mapped

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[Life]:
        """Ends the sampling; every life that was seen."""
        self._stop.set()
        self._thread.join()
        return [*self._lives.values(), *self._stored.values()]

    def alive(self) -> list[Life]:
        """Whoever was seen and is still there."""
        return [life for (pid, born), life in self._lives.items() if _born(pid) == born]

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            for pid, role in self._roles().items():
                self._look(pid, role)
            for role, paths in self._folders().items():
                stored = self._stored.setdefault(role, Life(0, role))
                stored.samples.append(weigh(paths))

    def _look(self, pid: int, role: str) -> None:
        born, sample = _born(pid), look(pid)
        if born is None or sample is None:
            return
        life = self._lives.setdefault((pid, born), Life(pid, role))
        life.role = role  # who has just begun is known by name a moment later
        life.samples.append(sample)
        self.shared |= _mapped(pid)


def look(pid: int) -> Sample | None:
    """A process as it stands; None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        rollup = _kilobytes(folder / "smaps_rollup")
        status = _kilobytes(folder / "status")
        files = sum(1 for _ in (folder / "fd").iterdir())
        threads = sum(1 for _ in (folder / "task").iterdir())
    except OSError:
        return None
    memory = rollup.get("Anonymous", status.get("RssAnon"))
    if memory is None:  # a zombie has none
        return None
    return Sample(time.monotonic(), 1024 * memory, 1024 * rollup.get("Rss", 0), files, threads)


def weigh(paths: Iterable[Path]) -> Sample:
    """What files and folders in memory take, and in how many files."""
    n = n_bytes = 0
    for path in paths:
        for each in (path, *path.rglob("*")):
            with contextlib.suppress(OSError):  # it has just gone
                n_bytes += 512 * each.lstat().st_blocks
                n += 1
    return Sample(time.monotonic(), n_bytes, 0, n, 0)


def pooled_slope(lives: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    """Units a second out of (seconds, value); None without two samples of one life.

    Pairs shorter than a part of the longest life say little and are left out.
    """
    series = [np.array(life[:: 1 + len(life) // MOST], float) for life in lives if len(life) > 1]
    if not series:
        return None
    least_s = APART * max(life[-1, 0] - life[0, 0] for life in series)
    slopes, weights = [np.empty(0)], [np.empty(0)]
    for life in series:
        first, second = np.triu_indices(len(life), 1)
        apart_s = life[second, 0] - life[first, 0]
        far = apart_s >= max(least_s, 1e-9)
        slopes.append((life[second, 1] - life[first, 1])[far] / apart_s[far])
        weights.append(apart_s[far])
    return _weighted_median(np.concatenate(slopes), np.concatenate(weights))


@dataclass(frozen=True)
class Growth:
    """One role. Sizes are medians; slopes are per hour; None: too short a life to say."""

    role: str
    lives: int
    watched_s: float  # after the warm-ups
    memory: float  # bytes
    resident: float
    memory_per_h: float | None
    files: float
    files_per_h: float | None
    threads: float
    threads_per_h: float | None


def growth(role: str, lives: Sequence[Life], warm_up_s: float) -> Growth | None:
    """None when nobody of the role outlived the warm-up."""
    judged = [samples for life in lives if len(samples := life.after(warm_up_s)) > 1]
    if not judged:
        return None
    every = list(itertools.chain.from_iterable(judged))

    def median(name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in every)

    def per_h(name: str) -> float | None:
        slope = pooled_slope([[(s.seconds, getattr(s, name)) for s in life] for life in judged])
        return None if slope is None else 3600 * slope

    return Growth(
        role,
        len(lives),
        sum(life[-1].seconds - life[0].seconds for life in judged),
        median(MEMORY),
        median("resident"),
        per_h(MEMORY),
        median(FILES),
        per_h(FILES),
        median(THREADS),
        per_h(THREADS),
    )


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _kilobytes(path: Path) -> dict[str, int]:
    """The lines of a file such as /proc/PID/status whose value is in kB."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[2:] == ["kB"]}


def _born(pid: int) -> int | None:
    """In ticks since the machine started; None when there is no such process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def _mapped(pid: int) -> set[Path]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    paths = {line.partition("/dev/shm/")[2] for line in lines}
    return {Path("/dev/shm") / path for path in paths if path and not path.endswith("(deleted)")}
