"""Server processes as the supervisor keeps them: started, watched, started again, stopped."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

RESTARTS = 5  # in a row, each within SETTLED_S of its start
SETTLED_S = 60.0
TAIL_BYTES = 4000
GLIBC_SETTINGS = {
    "glibc.cpu.x86_non_temporal_threshold": 1 << 15,  # steps from here on are copied one by one
    "glibc.malloc.hugetlb": 1,  # large pages, where a program has to ask for them
    "glibc.malloc.mmap_threshold": 1 << 25,  # it takes no greater one
    "glibc.malloc.trim_threshold": 1 << 28,
}


def allow_many_files() -> None:
    """Raises this process's limit of open files to what it may have: a connection is one each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_settings() -> dict[str, str]:
    """For the environment of a process that receives much: glibc's settings of its memory.

    Copies of a step leave the caches alone; as it is, only those of about the cache's size do, and
    below, every line of memory is read that is then overwritten. What a large message was in stays
    with the process, up to the trim threshold; as it is, the system has it back and gives it page
    by page for the next one, which costs as much as the copy. It lies in large pages, which cost
    less when they are new and are found sooner. A user's own setting stands. Without glibc nothing
    happens.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    ours = [f"{name}={value}" for name, value in GLIBC_SETTINGS.items() if name not in given]
    return {"GLIBC_TUNABLES": ":".join(filter(None, (given, *ours)))}


class ServerProcess:
    """One Python module run as a process of its own, with its output in a log file."""

    def __init__(
        self, name: str, module: str, settings: Path, log: Path, env: Mapping[str, str]
    ) -> None:
        """env: what it is to have beside this process's environment."""
        self.name = name
        self.log = log
        self._env = {"OMP_NUM_THREADS": "1", **os.environ, **env}
        self.restarts = 0
        self._command = [sys.executable, "-m", module, "--settings", str(settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is the supervisor's alone."""
        self._started_s = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._env,
            )

    def ended(self) -> int | None:
        """The exit code, or None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def restart(self) -> bool:
        """Start it again after its end; False when it died too often too soon."""
        lived_s = time.monotonic() - self._started_s
        self.restarts = 1 if lived_s > SETTLED_S else self.restarts + 1
        if self.restarts > RESTARTS:
            return False
        self.start()
        return True

    def tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout_s: float) -> None:
        """End it, by force after timeout_s; may be called twice."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)
        if not self.wait(timeout_s):
            self._process.kill()
            self._process.wait()
