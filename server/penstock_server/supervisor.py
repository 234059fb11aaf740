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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.control import Asker, NoAnswer
from penstock.keys import ClientKeys
from penstock_server import checkpoint, run_folder, wiring
from penstock_server.addresses import Addresses
from penstock_server.config import Campaign
from penstock_server.coordinator.plan import planned
from penstock_server.curve import make_keys
from penstock_server.dataset import DataSet
from penstock_server.design import draw
from penstock_server.interpreters import Command, solver_command
from penstock_server.launch.local import LocalLauncher
from penstock_server.launch.ray_ranks import RankGroup
from penstock_server.ledger import keep_ledgers, settled_segments
from penstock_server.physics import find_check
from penstock_server.processes import ServerProcess, memory_settings
from penstock_server.replay import read_recording
from penstock_server.run_folder import RunFolder
from penstock_server.run_processes import STOP_S, RunProcesses
from penstock_server.run_records import RunRecords, Status
from penstock_server.sizes import shard_names
from penstock_server.stored_match import ENOUGH, match
from penstock_server.wiring import keeper_settings, slab_views, stored_views

TURN_S = 0.1
STATUS_S = 0.5
VALIDATOR_S = 600.0  # for the last evaluation


Source = tuple[str, dict[str, Any]]  # a function by name, and its settings
Feeds = tuple[str, list[dict[str, Any]]]  # the same for each rank


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
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.lock())
        stack.enter_context(run.make_scratch())
        stack.enter_context(_terminations())
        stack.callback(run.clear_scratch)
        stack.callback(_keep_ledgers, run)
        try:
            supervisor = Supervisor(campaign, run, resume is not None, on_status, on_message)
            stack.callback(supervisor.stop)
            return supervisor.work()
        except OSError as error:
            if trouble := run.disk_trouble(error):
                raise CampaignFailed(trouble) from error
            raise


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
        self._points = draw(campaign)
        replay = campaign.offline.replay
        self._recording = read_recording(Path(replay)) if replay is not None else None
        if campaign.admission.check is not None:
            find_check(campaign.admission.check)  # before anything starts
        self._shards = shard_names(campaign)
        self._addresses = Addresses.choose(self._shards)
        security = self._addresses.security(campaign.security.mode)
        if security == "curve":
            self._addresses = replace(self._addresses, keys=make_keys(run.keys))
        self._records = RunRecords(campaign, run, self._points["train"], security)
        self._processes = RunProcesses(run, self._records, self._shards, on_message)
        self._asker: Asker | None = None
        self._asked_s = 0.0
        self._ending = False

    def work(self) -> Outcome:
        """The campaign from its start to its end; raises CampaignFailed when it cannot go on."""
        campaign = self._campaign
        command = solver_command(campaign) if campaign.produces else None
        campaign.save(self._run.campaign)
        self._records.targets(self._addresses)
        if self._resumed:
            self._run.remove_model()  # the validator ends as soon as a model is there
            self._run.remove_ledgers()
        if campaign.mode == "online":
            ledgers, settled = self._find_settled()
            self._start_coordinator(settled=settled)
            self._start_receivers(ledgers)
            self._start_training(slab_views(campaign, self._run), self._stream_feeds())
            self._start_workers(command)
            self._watch_training()
        else:
            if command is not None:
                self._produce(command)
            if campaign.trains:
                self._train_stored()
        return self._finish()

    # -- start -----------------------------------------------------------------------------------

    def _start_coordinator(
        self,
        settled: Mapping[int, list[tuple[int, int]]] | None = None,
        done: Sequence[int] = (),
        absent: Sequence[int] = (),
    ) -> None:
        campaign, run = self._campaign, self._run
        session = f"{time.time_ns():x}"
        settings = wiring.coordinator_settings(
            campaign, run, self._addresses, self._points, session, settled or {}, done, absent
        )
        settings.save(run.settings / "coordinator.json")
        self._processes.add("coordinator", "penstock_server.coordinator")
        keys = ClientKeys.given(self._addresses.client_keys)
        self._asker = Asker(self._addresses.coordinator, "supervisor/0", keys=keys)

    def _start_receivers(self, ledgers: Path | None = None) -> None:
        """And the keeper, if something is kept."""
        campaign, run = self._campaign, self._run
        for shard in self._shards:
            name = f"receiver-{shard}"
            told = wiring.receiver_settings(campaign, run, self._addresses, shard, ledgers)
            told.save(run.settings / f"{name}.json")
            self._processes.add(name, "penstock_server.receiver", memory_settings())
        if campaign.kept != "none":
            keeper = keeper_settings(campaign, run, self._addresses)
            keeper.save(run.settings / "keeper.json")
            self._processes.add("keeper", "penstock_server.keeper")

    def _start_workers(self, command: Command | None) -> None:
        assert command is not None
        campaign = self._campaign
        agency = wiring.agency(campaign, self._run, self._addresses, command)
        self._processes.launcher = LocalLauncher(agency)
        self._processes.launcher.start(campaign.solver.workers)
        self._records.phase("started")

    def _start_training(self, views: Source, feeds: Feeds) -> None:
        """Validator and ranks; Ray before the solvers: it takes seconds, and they its cores."""
        campaign, run = self._campaign, self._run
        if campaign.design.held_out:
            validator = wiring.validator_settings(campaign, run, self._addresses, views)
            (run.settings / "validator.json").write_text(json.dumps(_plain(validator), indent=1))
            self._processes.add("validator", "penstock_server.validation")
        ranks = range(campaign.training.ranks)
        self._processes.ranks = RankGroup(
            wiring.training_plan(campaign, run, self._recording),
            feed_factory=feeds[0],
            feed_settings=feeds[1],
            coordinator=self._addresses.coordinator,
            scratch=run.scratch,
            logs=run.logs,
            metrics_ports=[self._addresses.metrics[f"rank-{rank}"] for rank in ranks],
            keys=self._addresses.client_keys,
        )
        self._processes.ranks.start()

    def _stream_feeds(self) -> Feeds:
        ranks = range(self._campaign.training.ranks)
        told = [wiring.feed_settings(self._campaign, self._run, rank) for rank in ranks]
        return "penstock_server.feed:open_feed", told

    def _find_settled(self) -> tuple[Path | None, Mapping[int, list[tuple[int, int]]]]:
        """What a resumed run's newest durable checkpoint has: ledgers, and segments in them."""
        if not self._resumed:
            return None, {}
        newest = checkpoint.newest_intact(self._run.checkpoints)
        if newest is None:
            self._say("The run has no checkpoint yet, so it begins again from the start.")
            return None, {}
        self._say(f"The run goes on from its checkpoint at batch {newest.batch}.")
        return newest.ledgers, settled_segments(newest.ledgers)

    # -- a stored data set -----------------------------------------------------------------------

    def _produce(self, command: Command) -> None:
        """Solvers fill the data set; what a resumed run has of it already is left alone."""
        run = self._run
        done: list[int] = []
        if self._resumed and run.data.exists():
            done = match(self._campaign, DataSet(run.data), self._points, enough=0.0).done
            self._say(f"{len(done)} simulations stand in the data set already.")
        self._start_coordinator(done=done, absent=self._not_recorded())
        self._start_receivers()
        self._start_workers(command)
        while self._records.status.get("state") not in ("over", "trained"):
            self._turn()
            time.sleep(TURN_S)
        self._processes.end_production()
        self._records.phase("produced")

    def _not_recorded(self) -> list[int]:
        """Training simulations that a replay has no use for: nothing of them was drawn."""
        if self._recording is None:
            return []
        used = self._recording.simulations
        everything = planned(
            self._points, campaign_seed=0, training_shards=["0"], shards_per_simulation=1
        )
        return [each.id for each in everything if each.role == "train" and each.id not in used]

    def _train_stored(self) -> None:
        """Training from this run's data set, or from the one that was given."""
        campaign = self._campaign
        path = Path(campaign.offline.dataset or self._run.data)
        data = DataSet(path)
        partial = campaign.produces or self._recording is not None
        matched = match(campaign, data, self._points, enough=0.0 if partial else ENOUGH)
        if matched.message and self._recording is None:
            self._say(matched.message)
        if not campaign.produces:
            self._start_coordinator(done=matched.done, absent=matched.absent)
        feeds = [
            wiring.stored_feed_settings(campaign, path, matched.rows["train"], rank)
            for rank in range(campaign.training.ranks)
        ]
        factory = "penstock_server.stored_feed:open_feed"
        if self._recording is not None:
            factory = "penstock_server.replay_feed:open_feed"
            feeds = [
                wiring.replay_feed_settings(self._recording, stored, rank)
                for rank, stored in enumerate(feeds)
            ]
        self._start_training(stored_views(path, matched.rows), (factory, feeds))
        if not campaign.produces:
            self._records.phase("started")
        self._watch_training()

    # -- while it runs ---------------------------------------------------------------------------

    def _watch_training(self) -> None:
        """Until the ranks have finished."""
        ranks = self._processes.ranks
        assert ranks is not None
        while not ranks.finished:
            self._turn()
            time.sleep(TURN_S)
        self._ending = True
        self._records.phase("trained")

    def _turn(self) -> None:
        """One look at everything that was started; raises CampaignFailed."""
        launcher, ranks = self._processes.launcher, self._processes.ranks
        for process, code in self._processes.dead(self._ending):
            self._start_again(process, code)
        if launcher is not None:
            for death in launcher.poll():
                self._say(death.message)
        if ranks is not None:
            for message in ranks.poll():
                self._say(message)
            if ranks.failure is not None:
                raise self._failed(ranks.failure)
        self._ask_status()
        self._processes.note()
        if self._records.status.get("state") == "stopping" and not self._ending:
            raise self._failed(str(self._records.status.get("why")))

    def _start_again(self, process: ServerProcess, code: int) -> None:
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
            self._asker.post("status", **self._records.cursors)

    def _take_status(self, status: Status) -> None:
        self._records.take(status, self._say)
        self._on_status(status)

    # -- the end ---------------------------------------------------------------------------------

    def _finish(self) -> Outcome:
        """The validator's last word, then everyone goes home; writes summary.json."""
        assert self._asker is not None
        self._ending = True
        ranks, validator = self._processes.ranks, self._processes.server.get("validator")
        model = ranks.model if ranks is not None else None
        if validator is not None and model is not None:
            deadline = time.monotonic() + VALIDATOR_S
            while validator.ended() != 0 and time.monotonic() < deadline:
                self._turn()
                time.sleep(TURN_S)
        elif validator is not None:
            validator.stop(STOP_S)
        if self._campaign.trains:
            self._records.phase("validated")
        with contextlib.suppress(NoAnswer):
            status = self._asker.ask("status", timeout_s=10.0, **self._records.cursors)
            self._take_status(status)
            self._asker.ask("stop", timeout_s=10.0, why="the run is complete.")
        self._processes.note()
        self._processes.go_home(self._asker)
        self._records.phase("ended")
        summary = self._records.summarise()
        requested = summary["simulations"]["requested"]
        completed = summary["simulations"]["completed"] + summary["simulations"]["partial"]
        done = bool(model) or not self._campaign.trains
        return Outcome(summary, self._run.root, done and completed > 0 < requested)

    def stop(self) -> None:
        """Ends whatever still runs; may be called twice."""
        self._ending = True
        if self._processes.ranks is not None:
            self._processes.ranks.stop()
        self._processes.go_home(self._asker)
        if self._asker is not None:
            self._asker.close()

    def _failed(self, text: str, detail: str = "") -> CampaignFailed:
        with contextlib.suppress(Exception):
            if self._asker is not None:
                self._take_status(self._asker.ask("status", timeout_s=3.0, **self._records.cursors))
        status = self._records.status
        if status:
            with contextlib.suppress(OSError):  # a full disk is told below
                self._records.summarise()
        faults = status.get("faults") or []
        if not detail and faults:
            detail = str(faults[-1].get("stderr_tail") or faults[-1].get("message") or "")
        trouble = self._run.disk_trouble()
        return CampaignFailed(f"{text}\n{trouble}" if trouble else text, detail)

    def _note(self, process: str, why: str) -> None:
        """A line in the coordinator's events, if it lives."""
        if self._asker is not None and process != "coordinator":
            with contextlib.suppress(NoAnswer):
                self._asker.ask("fault", timeout_s=2.0, process=process, why=why)


def _keep_ledgers(run: RunFolder) -> None:
    with contextlib.suppress(OSError):  # a full disk; the memory is given back all the same
        keep_ledgers(run.scratch, run.ledgers)


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
