"""Runs one campaign on this machine: starts every process, watches them, ends them in order.

Called by `penstock run`; it is the parent of coordinator, receivers, agents and validator, and the
driver of the ranks. Whatever ends it, nothing stays behind in memory or in the process table.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.control import Asker, NoAnswer
from penstock_server import checkpoint, run_folder, wiring
from penstock_server.config import Campaign
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.design import draw
from penstock_server.history import History
from penstock_server.interpreters import solver_command
from penstock_server.launch.local import LocalLauncher
from penstock_server.launch.ray_ranks import RankGroup
from penstock_server.ledger import settled_segments
from penstock_server.processes import ServerProcess
from penstock_server.run_folder import RunFolder
from penstock_server.sizes import shard_names
from penstock_server.summary import ShardCounts, summarise
from penstock_server.wiring import Addresses

TURN_S = 0.1
STATUS_S = 0.5
STOP_S = 20.0  # for each kind of process to end by itself
RECEIVER_S = 3.0  # for a receiver to hear that it may leave
VALIDATOR_S = 600.0  # for the last evaluation

Status = dict[str, Any]


class CampaignFailed(RuntimeError):
    """The campaign could not be finished; the text is for the user, `detail` a log's end."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    summary: dict[str, Any]
    folder: Path
    ok: bool


def run_campaign(
    campaign: Campaign,
    runs: Path,
    *,
    resume: Path | None = None,
    on_status: Callable[[Status], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Runs the campaign to its end.

    Raises CampaignFailed, RunFolderError, or SolverError; KeyboardInterrupt once all is stopped.
    """
    run = run_folder.reopen(resume) if resume else run_folder.create(runs, campaign.name)
    with run.lock(), run.make_scratch(), _terminations():
        supervisor = Supervisor(campaign, run, resume is not None, on_status, on_message)
        try:
            supervisor.start()
            supervisor.watch()
            return supervisor.finish()
        finally:
            supervisor.stop()
            run.clear_scratch()


class Supervisor:
    """The processes of one run."""

    def __init__(
        self,
        campaign: Campaign,
        run: RunFolder,
        resumed: bool,
        on_status: Callable[[Status], None],
        on_message: Callable[[str], None],
    ) -> None:
        self._campaign, self._run, self._resumed = campaign, run, resumed
        self._on_status, self._say = on_status, on_message
        self._began_s = time.monotonic()
        self._phases: dict[str, float] = {}
        self._status: Status = {}
        self._cursors: dict[str, int] = {}
        self._counts = ShardCounts()
        self._history = History(run.history)
        self._shards = shard_names(campaign)
        self._addresses = Addresses.choose(self._shards)
        self._processes: dict[str, ServerProcess] = {}
        self._launcher: LocalLauncher | None = None
        self._ranks: RankGroup | None = None
        self._asker: Asker | None = None
        self._asked_s = 0.0
        self._pids: dict[str, int | None] = {}
        self._ending = False

    # -- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts everything; solvers compile and Ray starts at the same time."""
        campaign, run = self._campaign, self._run
        command = solver_command(campaign)
        campaign.save(run.campaign)
        self._write_targets()
        ledgers, settled = self._find_settled()
        settings = wiring.coordinator_settings(
            campaign, run, self._addresses, draw(campaign), f"{time.time_ns():x}", settled
        )
        settings.save(run.settings / "coordinator.json")
        self._add("coordinator", "penstock_server.coordinator")
        for shard in self._shards:
            name = f"receiver-{shard}"
            told = wiring.receiver_settings(campaign, run, self._addresses, shard, ledgers)
            told.save(run.settings / f"{name}.json")
            self._add(name, "penstock_server.receiver")
        self._asker = Asker(self._addresses.coordinator, "supervisor/0")
        if HELD_OUT in self._shards:
            validator = wiring.validator_settings(campaign, run, self._addresses)
            (run.settings / "validator.json").write_text(json.dumps(_plain(validator), indent=1))
            self._add("validator", "penstock_server.validation")
        self._ranks = RankGroup(
            wiring.training_plan(campaign, run),
            feed_factory="penstock_server.feed:open_feed",
            feed_settings=[
                wiring.feed_settings(campaign, run, rank) for rank in range(campaign.training.ranks)
            ],
            coordinator=self._addresses.coordinator,
            scratch=run.scratch,
            logs=run.logs,
            metrics_ports=[
                self._addresses.metrics[f"rank-{rank}"] for rank in range(campaign.training.ranks)
            ],
        )
        self._ranks.start()  # Ray first: it takes seconds, and solvers would take its cores
        self._launcher = LocalLauncher(wiring.agency(campaign, run, self._addresses, command))
        self._launcher.start(campaign.solver.workers)
        self._phase("started")

    def _write_targets(self) -> None:
        """metrics.json: where Prometheus finds this run's processes (its file_sd format)."""
        labels = {"campaign": self._campaign.name, "run": self._run.identity}
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "process": name}}
            for name, port in self._addresses.metrics.items()
        ]
        (self._run.root / "metrics.json").write_text(json.dumps(targets, indent=1) + "\n")

    def _add(self, name: str, module: str) -> None:
        settings = self._run.settings / f"{name}.json"
        self._processes[name] = ServerProcess(
            name, module, settings, self._run.logs / f"{name}.log"
        )
        self._processes[name].start()

    def _find_settled(self) -> tuple[Path | None, Mapping[int, list[tuple[int, int]]]]:
        """What a resumed run's newest durable checkpoint has: ledgers, and segments in them."""
        run = self._run
        if not self._resumed:
            return None, {}
        run.remove_model()  # the validator ends as soon as a model is there
        newest = checkpoint.newest_intact(run.checkpoints)
        if newest is None:
            self._say("The run has no checkpoint yet, so it begins again from the start.")
            return None, {}
        self._say(f"The run goes on from its checkpoint at batch {newest.batch}.")
        return newest.ledgers, settled_segments(newest.ledgers)

    # -- while it runs ---------------------------------------------------------------------------

    def watch(self) -> None:
        """Until the ranks have finished; raises CampaignFailed when the campaign cannot go on."""
        assert self._ranks is not None
        while not self._ranks.finished:
            self._turn()
            if self._status.get("state") == "stopping":
                raise self._failed(str(self._status.get("why")))
            time.sleep(TURN_S)
        self._ending = True
        self._phase("trained")

    def _turn(self) -> None:
        """One look at everything that was started."""
        assert self._launcher is not None and self._ranks is not None
        for process in self._processes.values():
            self._look_after(process)
        for death in self._launcher.poll():
            self._say(death.message)
        for message in self._ranks.poll():
            self._say(message)
        if self._ranks.failure is not None:
            raise self._failed(self._ranks.failure)
        self._ask_status()
        self._write_processes()

    def _write_processes(self) -> None:
        """processes.json: who runs under which process id, for people and for tests."""
        assert self._launcher is not None and self._ranks is not None
        pids = {name: process.pid for name, process in self._processes.items()}
        pids |= self._launcher.pids
        pids |= {f"rank-{rank}": pid for rank, pid in enumerate(self._ranks.pids) if pid}
        if pids != self._pids:
            self._pids = pids
            part = self._run.root / "processes.part"
            part.write_text(json.dumps(pids, indent=1) + "\n", encoding="utf-8")
            part.replace(self._run.root / "processes.json")

    def _look_after(self, process: ServerProcess) -> None:
        code = process.ended()
        if code is None or (self._ending and code == 0):
            return
        if process.name.startswith("receiver") and code == 0:
            return  # told to leave
        if process.name == "validator" and code == 0:
            return
        tail = process.tail()
        self._note(process.name, f"ended with exit code {code}")
        if not process.restart():
            raise self._failed(
                f"The {process.name} ended again and again (exit code {code}). Its log is "
                f"{process.log}.",
                tail,
            )
        self._say(f"The {process.name} ended (exit code {code}) and was started again.")

    def _ask_status(self) -> None:
        """Posts the next question when the last was answered; hands answers on."""
        assert self._asker is not None
        answer = self._asker.poll()
        if answer is not None and answer.get("kind") == "status":
            self._take_status(answer)
        now = time.monotonic()
        if not self._asker.pending and now - self._asked_s >= STATUS_S:
            self._asked_s = now
            self._asker.post("status", **self._cursors)

    def _take_status(self, status: Status) -> None:
        cursors = status.get("next") or {}
        completed = int(status["simulations"]["completed"])
        for report in status.get("validated") or ():
            self._history.validated(report)
        for report in status.get("progress") or ():
            if report.get("loss") is not None:
                self._phases.setdefault("first_batch", round(time.monotonic() - self._began_s, 3))
            self._history.progress(report, completed)
        for event in status.get("events") or ():
            if event.get("what") and "process" not in event:  # those were said when they happened
                self._say(str(event["what"]))
        self._cursors = {
            f"{name}_since": int(cursors[name])
            for name in ("progress", "validated", "events")
            if name in cursors
        }
        self._counts.update(status.get("shards") or {})
        self._status = status
        self._on_status(status)

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> Outcome:
        """The validator's last word, then everyone goes home; writes summary.json."""
        assert self._asker is not None and self._ranks is not None
        validator = self._processes.get("validator")
        if validator is not None and self._ranks.model is not None:
            deadline = time.monotonic() + VALIDATOR_S
            while validator.ended() != 0 and time.monotonic() < deadline:
                self._turn()
                time.sleep(TURN_S)
        elif validator is not None:
            validator.stop(STOP_S)
        self._phase("validated")
        with contextlib.suppress(NoAnswer):
            status = self._asker.ask("status", timeout_s=10.0, **self._cursors)
            self._take_status(status)
            self._asker.ask("stop", timeout_s=10.0, why="the run is complete.")
        self._go_home()
        self._phase("ended")
        summary = self._summarise()
        requested = summary["simulations"]["requested"]
        completed = summary["simulations"]["completed"] + summary["simulations"]["partial"]
        return Outcome(
            summary, self._run.root, bool(self._ranks.model) and completed > 0 < requested
        )

    def stop(self) -> None:
        """Ends whatever still runs; may be called twice."""
        self._ending = True
        if self._ranks is not None:
            self._ranks.stop()
        self._go_home()
        if self._asker is not None:
            self._asker.close()

    def _go_home(self) -> None:
        """Agents first, so that no worker talks to a shard that is gone; the coordinator last."""
        asked = self._processes.get("coordinator")
        if self._launcher is not None:
            if self._asker is not None and asked is not None and asked.ended() is None:
                with contextlib.suppress(NoAnswer, ValueError):
                    self._asker.ask("stop", timeout_s=5.0, why="the supervisor ends the run.")
                deadline = time.monotonic() + STOP_S
                while self._launcher.alive and time.monotonic() < deadline:
                    self._launcher.poll()
                    time.sleep(0.05)
            self._launcher.stop(STOP_S)
        for name, process in self._processes.items():
            if name.startswith("receiver") and asked is not None and asked.ended() is None:
                process.wait(RECEIVER_S)
            if name != "coordinator":
                process.stop(STOP_S)
        if asked is not None and not asked.wait(5.0):
            asked.stop(STOP_S)

    def _summarise(self) -> dict[str, Any]:
        campaign, run = self._campaign, self._run
        summary = summarise(
            self._status,
            self._counts,
            seconds=round(time.monotonic() - self._began_s, 3),
            phases=self._phases,
            about={
                "name": campaign.name,
                "run": run.identity,
                "folder": str(run.root),
                "model": str(run.model) if run.model.exists() else None,
                "picture": str(run.root / "picture.png")
                if (run.root / "picture.png").exists()
                else None,
                "workers": campaign.solver.workers,
                "mpi_ranks": campaign.solver.mpi_ranks,
                "ranks": campaign.training.ranks,
                "security": "loopback",
            },
        )
        part = run.summary.with_suffix(".part")
        part.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        part.replace(run.summary)
        return summary

    def _failed(self, text: str, detail: str = "") -> CampaignFailed:
        with contextlib.suppress(Exception):
            if self._asker is not None:
                self._take_status(self._asker.ask("status", timeout_s=3.0, **self._cursors))
        if self._status:
            self._summarise()
        faults = self._status.get("faults") or []
        if not detail and faults:
            detail = str(faults[-1].get("stderr_tail") or faults[-1].get("message") or "")
        return CampaignFailed(text, detail)

    def _note(self, process: str, why: str) -> None:
        """A line in the coordinator's events, if it lives."""
        if self._asker is not None and process != "coordinator":
            with contextlib.suppress(NoAnswer):
                self._asker.ask("fault", timeout_s=2.0, process=process, why=why)

    def _phase(self, name: str) -> None:
        self._phases[name] = round(time.monotonic() - self._began_s, 3)


def _plain(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@contextlib.contextmanager
def _terminations() -> Iterator[None]:
    """SIGTERM is an ordered stop like Ctrl-C, where signals can be handled at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
