"""What a run writes down about itself while it goes and at its end; the supervisor's pen."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_server.addresses import Addresses
from penstock_server.advice import Setup
from penstock_server.attribution import attribute
from penstock_server.config import Campaign
from penstock_server.cpu_time import CpuTime
from penstock_server.design import Point
from penstock_server.drawn import compare_with_design
from penstock_server.history import History
from penstock_server.json_file import write_json
from penstock_server.run_folder import RunFolder
from penstock_server.steady import Steady
from penstock_server.summary import ShardCounts, summarise

CPU_S = 2.0  # between two looks at the processes' times

Status = dict[str, Any]


class RunRecords:
    """metrics.json, processes.json, history.csv, summary.json, drawn.json of one run."""

    def __init__(
        self, campaign: Campaign, run: RunFolder, points: Sequence[Point], security: str
    ) -> None:
        """points: of the training simulations, as designed. security: of the sockets."""
        self._campaign, self._run, self._points = campaign, run, points
        self._security = security
        self._began_s = time.monotonic()
        self._phases: dict[str, float] = {}
        self._counts = ShardCounts()
        self._history = History(run.history)
        self._pids: dict[str, int | None] = {}
        self._cpu = CpuTime()
        self._cpu_due_s = 0.0
        self._steady = Steady()
        self.status: Status = {}
        self.cursors: dict[str, int] = {}  # from where the next status is to go on

    def phase(self, name: str) -> None:
        """The run has come so far."""
        self._phases[name] = round(time.monotonic() - self._began_s, 3)

    def targets(self, addresses: Addresses) -> None:
        """metrics.json: where Prometheus finds this run's processes (its file_sd format)."""
        labels = {"campaign": self._campaign.name, "run": self._run.identity}
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "process": name}}
            for name, port in addresses.metrics.items()
            if self._runs(name)
        ]
        write_json(self._run.root / "metrics.json", targets)

    def _runs(self, process: str) -> bool:
        """Whether the campaign has such a process."""
        campaign = self._campaign
        kind = process.partition("-")[0]
        return {
            "keeper": campaign.kept != "none",
            "receiver": campaign.produces,
            "rank": campaign.trains,
            "validator": campaign.trains and campaign.design.held_out > 0,
        }.get(kind, True)

    def processes(self, pids: Mapping[str, int | None], groups: Mapping[str, list[int]]) -> None:
        """processes.json: who runs under which process id, for people and for tests."""
        if pids != self._pids:
            with contextlib.suppress(OSError):  # a full disk must not keep them from being ended
                write_json(self._run.root / "processes.json", pids)
                self._pids = dict(pids)
        if time.monotonic() >= self._cpu_due_s:
            self._cpu.look(groups)
            self._cpu_due_s = time.monotonic() + CPU_S

    def take(self, status: Status, say: Callable[[str], None]) -> None:
        """The newest status: history, counts and events."""
        cursors = status.get("next") or {}
        completed = int(status["simulations"]["completed"])
        for report in status.get("validated") or ():
            self._history.validated(report)
        for report in status.get("progress") or ():
            if report.get("loss") is not None and "first_batch" not in self._phases:
                self.phase("first_batch")
            self._history.progress(report, completed)
        for event in status.get("events") or ():
            if event.get("what") and "process" not in event:  # those were said when they happened
                say(str(event["what"]))
        self.cursors = {
            f"{name}_since": int(cursors[name])
            for name in ("progress", "validated", "events")
            if name in cursors
        }
        self._counts.update(status.get("shards") or {})
        self._steady.take(status, self._cpu.seconds())
        self.status = status

    def summarise(self) -> dict[str, Any]:
        """Writes summary.json out of the newest status."""
        campaign, run = self._campaign, self._run
        picture = run.root / "picture.png"
        summary = summarise(
            self.status,
            self._counts,
            seconds=round(time.monotonic() - self._began_s, 3),
            phases=self._phases,
            about={
                "name": campaign.name,
                "run": run.identity,
                "mode": campaign.mode,
                "folder": str(run.root),
                "model": str(run.model) if run.model.exists() else None,
                "best": str(run.best) if run.best.exists() else None,
                "data": str(run.data) if run.data.exists() else campaign.offline.dataset,
                "picture": str(picture) if picture.exists() else None,
                "workers": campaign.solver.workers,
                "mpi_ranks": campaign.solver.mpi_ranks,
                "ranks": campaign.training.ranks,
                "security": self._security,
            },
            cpu_s=self._cpu.seconds(),
            written_fields=allocated(run.data),
            attribution=attribute(self.status, self._steady, setup_of(campaign)),
        )
        write_json(run.summary, summary)
        drawn = (self.status.get("trainer") or {}).get("drawn_inputs")
        if drawn and drawn["count"]:
            told = compare_with_design(self._points, campaign.steps_sent, drawn)
            write_json(run.root / "drawn.json", told)
        return summary


def setup_of(campaign: Campaign) -> Setup:
    """What advice depends on, of the campaign and of this machine."""
    return Setup(
        mode=campaign.mode,
        workers=campaign.solver.workers,
        cores=len(os.sched_getaffinity(0)),
        policy=campaign.reservoir.policy,
        draws_per_sample=campaign.reservoir.draws_per_sample,
    )


def allocated(path: Path) -> int:
    """Bytes that a file takes on the disk, without its holes; 0 if there is none."""
    return 512 * path.stat().st_blocks if path.exists() else 0
