"""Whole campaigns in a process of their own, as `penstock run` starts them; for the system tests.

The solver is penstock_solvers.stamp, whose fields say which simulation and step they are, so that
the journal of admissions can be checked segment by segment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_server.admission_journal import read_lines
from penstock_server.audit import audit, read_tables
from penstock_solvers.stamp import expected

N = 8

CAMPAIGN = """
name = "stamp"
seed = 3
[solver]
command = ["{{python}}", "-m", "penstock_solvers.stamp", "--n", "8", "--steps", "{steps}"{options}]
workers = {workers}
mpi_ranks = {mpi_ranks}
steps = {steps}
[design]
sampler = "random"
simulations = {simulations}
validation = {validation}
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.stamp]
shape = [8, 8]
[reservoir]
capacity = 400
threshold = 40
draws_per_sample = 2.0
[training]
options = {{ hidden = [16] }}
ranks = {ranks}
batch_size = 8
learning_rate = 1e-4
[validation]
every_batches = 200
[checkpoint]
every_s = 2.0
[liveness]
silence_s = 4.0
beat_s = 0.5
start_deadline_s = 60.0
[audit]
checksums = true
"""


def write_campaign(
    folder: Path,
    *options: str,
    steps: int = 20,
    simulations: int = 30,
    validation: int = 3,
    workers: int = 2,
    mpi_ranks: int = 1,
    ranks: int = 1,
    **settings: str,
) -> Path:
    """options go to the solver; settings are TOML values by dotted key with __ for the dot."""
    text = CAMPAIGN.format(
        options="".join(f', "{o}"' for o in options), steps=steps, simulations=simulations,
        validation=validation, workers=workers, mpi_ranks=mpi_ranks, ranks=ranks,
    )  # fmt: skip
    path = folder / "stamp.toml"
    path.write_text(text)
    return path


def _hear_ctrl_c() -> None:
    """A shell lets what it starts with `&` ignore SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A `penstock run` under way; `prefix` is what its command is started with."""

    solver = "penstock_solvers.stamp"  # the module that its workers run

    def __init__(self, campaign: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self.runs = campaign.parent / "runs"
        self._log = campaign.parent / "output.txt"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *prefix, sys.executable, "-m", "penstock.command", "run", str(campaign),
                    "--plain", "--runs", str(self.runs), *arguments,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - it takes no lock
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def folder(self) -> Path:
        return max(self.runs.glob("*/*"))

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    def pids(self) -> dict[str, int]:
        """Process ids by name (coordinator, receiver-0, rank-0, a1, ...)."""
        path = next(iter(self.runs.glob("*/*/processes.json")), None)
        return {} if path is None else json.loads(path.read_text())

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"The run ended early:\n{self.output}"
            assert time.monotonic() < deadline, f"Waited {timeout_s} s in vain:\n{self.output}"
            time.sleep(0.05)

    def batches(self) -> int:
        """Batches so far, as history.csv has them."""
        path = next(iter(self.runs.glob("*/*/history.csv")), None)
        lines = path.read_text().splitlines() if path is not None else []
        numbers = [int(float(line.split(",")[1])) for line in lines[1:] if line.split(",")[1]]
        return max(numbers, default=0)

    def finish(self, timeout_s: float = 90.0) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"The run did not end:\n{self.output}") from None

    def stop(self) -> None:
        """For the end of a test: an ordered stop, by force after a while."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Started:
    """Starts runs and remembers them."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __call__(self, campaign: Path, *arguments: str, prefix: Sequence[str] = ()) -> Run:
        self.runs.append(Run(campaign, *arguments, prefix=prefix))
        return self.runs[-1]


def journals(run: Path) -> dict[str, int]:
    """How many admissions the journal of each shard tells of."""
    return {path.name: len(read_lines(path)) for path in sorted(run.glob("admissions-*.bin"))}


def admissions(
    run: Path, before: Mapping[str, int] | None = None
) -> list[tuple[int, int, int, int]]:
    """(simulation, segment, steps, checksum) of every admission, in all shards; before: not those
    that were in the journals when there were so many."""
    found = []
    for path in sorted(run.glob("admissions-*.bin")):
        lines = read_lines(path)[(before or {}).get(path.name, 0) :]
        for _, simulation, _, segment, steps, checksum in lines.tolist():
            found.append((simulation, segment, steps, checksum))
    return found


def check_admissions(run: Path, simulations: int, steps: int) -> None:
    """Every step of every simulation was admitted once, with the content that it should have."""
    found = admissions(run)
    places = [(simulation, segment) for simulation, segment, _, _ in found]
    assert len(places) == len(set(places)), "A segment was admitted twice."
    assert set(places) == {(s, k) for s in range(simulations) for k in range(steps)}
    for simulation, segment, _, checksum in found:
        content = expected(simulation, segment, N).astype("<f4")
        assert checksum == zlib.crc32(content.tobytes()), (simulation, segment)
    check_audit(run)


def check_audit(run: Path) -> None:
    """The product's own audit finds nothing, and there is nothing that it does not know."""
    found = audit(read_tables(run))
    assert {check.verdict for check in found.checks} == {"holds"}, found.checks


def check_replay(run: Path, runs: Path) -> None:
    """`penstock replay` gives the same batches and weights; its own run goes below runs."""
    command = [sys.executable, "-m", "penstock.command", "replay", str(run), "--plain"]
    done = subprocess.run(
        [*command, "--runs", str(runs)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "batches: the same, SHA-256" in done.stdout
    assert "weights: the same to the bit" in done.stdout


def children_of(pid: int) -> set[int]:
    """Every descendant of a process, from /proc."""
    table: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        table.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    queue = [pid]
    while queue:
        for child in table.get(queue.pop(), []):
            found.add(child)
            queue.append(child)
    return found


def worker_pids(run: Run) -> list[int]:
    """The solver processes of a run (mpirun excluded)."""
    found = []
    for pid in children_of(run.process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_agent = b"penstock.agent" in words
        if run.solver.encode() in words and not is_agent and b"mpirun" not in words[0]:
            found.append(pid)
    return sorted(found)
