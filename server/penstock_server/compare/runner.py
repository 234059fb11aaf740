"""One campaign as a process of its own; `study` runs them one after the other or side by side."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from penstock_server.compare.errors import CompareError

STOP_S = 60.0  # for an ordered stop after Ctrl-C
PROGRAM = (sys.executable, "-m", "penstock_server.compare.child")
TAIL = 30  # lines of a failed run's output


class Runner(Protocol):
    """Runs campaigns; several threads may call it."""

    def run(self, campaign: Path, overrides: Sequence[str], folder: Path) -> Path:
        """Runs one in an empty `folder` to its end; gives the run's own folder in it."""

    def stop(self) -> None:
        """Ends what runs, in order; nothing new starts. May be called twice."""


class ProcessRunner:
    """`penstock run` in processes that end with the thread that started them.

    Ctrl-C comes to another thread, which calls `stop`.
    """

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        """`program` is called as `penstock` is."""
        self._program = program
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, campaign: Path, overrides: Sequence[str], folder: Path) -> Path:
        """Raises CompareError when the run does not complete."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [*self._program, "run", str(campaign)]
        command += [word for text in overrides for word in ("--set", text)]
        output = folder / "output.txt"
        with output.open("wb") as log:
            process = self._start([*command, "--runs", str(folder), "--plain"], log.fileno())
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        found = sorted(path.parent for path in folder.glob("*/*/campaign.toml"))
        if code != 0 or len(found) != 1:
            raise CompareError(
                f"A run of the comparison did not complete (exit code {code}); its output is in "
                f"{output}. Mend the cause and start the same command again: finished runs are "
                "kept.",
                "\n".join(output.read_text(errors="replace").splitlines()[-TAIL:]),
            )
        return found[0]

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # an ordered stop; Ctrl-C may be ignored in the background
        for process in running:
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise CompareError("The comparison was stopped.")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "120"},
                start_new_session=True,  # Ctrl-C reaches it through us alone, once
            )
            self._running.add(process)
        return process


def read_summary(folder: Path, batches: int) -> dict[str, Any]:
    """summary.json of a finished run. Raises CompareError if it did not train `batches`."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if summary["batches"] != batches:
        raise CompareError(
            f"Every arm has to train {batches} batches, but the run {folder} trained "
            f"{summary['batches']} ({summary.get('why')}). Set stop.batches to what the "
            "simulations give, or raise design.simulations."
        )
    return summary
