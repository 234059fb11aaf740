"""The training processes, held by Ray: started, watched, started again, stopped.

The one file that knows Ray. Plain actors with a process group of their own, one process a rank.
When a rank dies, all of them are killed and start again from the newest snapshot: the others
stand in an all-reduce that nothing ends cleanly, and a fresh process is the surest way out of it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from penstock_server import snapshot
from penstock_server.references import find
from penstock_server.trainer import TrainingPlan

FUTILE = 3  # restarts without a new snapshot before the group gives up
GRACE_S = 2.0  # between the news that a rank is gone and the news why
STORE_BYTES = 80 << 20  # the least that Ray takes; no field passes through it
SOCKET_PATH = 107  # bytes a unix socket's path may have, of which Ray's own part takes
RAY_PATH = 70
TAIL_LINES = 12
TOKEN = secrets.token_hex(32)  # one for the life of this process: Ray reads it only once


@dataclass
class RankProcess:
    """The actor: one rank. `hello` first, then `run` once."""

    rank: int

    def hello(self) -> dict[str, Any]:
        """Load what takes long, and say who we are."""
        import penstock_server.trainer  # noqa: F401

        process = psutil.Process()
        return {"pid": process.pid, "born": process.create_time(), "host": socket.gethostname()}

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Train to the end; the outcome of `trainer.train`."""
        _redirect(Path(job["log"]))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        import torch

        from penstock_server.metrics import Newest, serve_counts
        from penstock_server.progress import CoordinatorReport
        from penstock_server.ranks import Ranks
        from penstock_server.trainer import train

        # Adam's moments of a dead unit shrink without end, and arithmetic on denormal numbers takes
        # ten times as long: a network with one unit in eight dead trained at a third of its speed.
        # For the whole process, so that a program which calls `train` itself decides for itself.
        torch.set_flush_denormal(True)
        plan: TrainingPlan = job["plan"]
        feed = find(job["feed_factory"], "feed_factory")(job["feed"])
        tell: Any = _silent
        if self.rank == 0 and job["coordinator"]:
            tell = CoordinatorReport(job["coordinator"], job["patience_s"], job["keys"])
        newest = Newest()
        labels = {"rank": str(self.rank)}
        serve_counts(job["metrics_port"], "rank", labels, newest.counts, newest.seconds)

        def report(body: dict[str, Any]) -> dict[str, Any] | None:
            newest.take(body)
            orders: dict[str, Any] | None = tell(body)
            return orders

        ranks = Ranks.join(
            self.rank, plan.limits.ranks, job["meet"], cuda=job["nccl"], silence_s=job["silence_s"]
        )
        try:
            outcome = train(plan, feed, report, ranks)
        except Exception:
            # The group stays: leaving it would look to the others as if this rank had died.
            traceback.print_exc()
            raise
        feed.close()
        ranks.leave()
        return outcome


@dataclass
class _Member:
    """The driver's view of one rank."""

    actor: Any
    greeting: Any
    pid: int = 0
    process: psutil.Process | None = None  # if it is on this host
    running: Any = None
    outcome: dict[str, Any] | None = None

    def meet(self, hello: dict[str, Any]) -> None:
        """Take its greeting; what has its number by now may be another process."""
        self.pid = hello["pid"]
        if hello["host"] == socket.gethostname():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(self.pid)
                self.process = process if process.create_time() == hello["born"] else None

    @property
    def gone(self) -> bool:
        """Whether its process is seen to have ended; Ray says so seconds later."""
        if self.process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            return not self.process.is_running() or (self.process.status() == psutil.STATUS_ZOMBIE)
        return True


@dataclass
class RankGroup:
    """All ranks of a campaign; the supervisor starts it and polls it.

    `scratch` is a folder in memory, `logs` one for a file per rank. Without an address of a
    coordinator nothing is reported.
    """

    plan: TrainingPlan
    feed_factory: str  # "module:callable", called with a rank's settings
    feed_settings: Sequence[dict[str, Any]]  # one for each rank
    coordinator: str
    scratch: Path
    logs: Path
    patience_s: float = 120.0  # with a silent coordinator
    metrics_ports: Sequence[int] = ()  # one for each rank; none: nothing is served
    silence_s: float = 300.0  # of a rank towards the others
    keys: str | None = None  # the clients' key file

    failure: str | None = field(default=None, init=False)  # why the group gave up, a sentence
    outcome: dict[str, Any] | None = field(default=None, init=False)  # of rank 0
    restarts: int = field(default=0, init=False)
    _members: list[_Member] = field(default_factory=list, init=False)
    _attempt: int = field(default=0, init=False)
    _lost: tuple[float, str] | None = field(default=None, init=False)  # since when, and why
    _futile: tuple[int, int] = field(default=(-1, 0), init=False)  # snapshot, restarts at it
    _session: contextlib.ExitStack | None = field(default=None, init=False)

    @property
    def finished(self) -> bool:
        """Whether all ranks came to the end."""
        return self.outcome is not None

    @property
    def model(self) -> Path | None:
        """The folder of the trained surrogate, when finished and anything was learnt."""
        found = self.outcome and self.outcome["model"]
        return Path(found) if found else None

    @property
    def pids(self) -> list[int]:
        """The processes of the ranks that have said hello, 0 for the others."""
        return [member.pid for member in self._members]

    def start(self) -> None:
        """Start Ray and the ranks; returns when their processes are on their way."""
        self._session = contextlib.ExitStack()
        self._session.enter_context(_ray(self.scratch, self.plan.limits.ranks))
        self._start_members()

    def poll(self) -> list[str]:
        """What happened since the last time, in sentences; restarts what has to be."""
        if self.finished or self.failure or not self._members:
            return []
        found = [self._look(rank, member) for rank, member in enumerate(self._members)]
        failures = [failure for failure in found if failure]
        if failures:
            return self._fail(failures[0])
        if self._lost is not None and time.monotonic() >= self._lost[0]:
            return self._restart(self._lost[1])
        if all(member.running is None and member.pid for member in self._members):
            if all(member.outcome is not None for member in self._members):
                self.outcome = self._members[0].outcome
                self._kill()
                return []
            self._run_members()
        return []

    def stop(self) -> None:
        """End the ranks and Ray; nothing of them stays. May be called twice."""
        if self._session is not None:
            self._kill()
            self._session.close()
            self._session = None

    # -- inner -----------------------------------------------------------------------------------

    def _start_members(self) -> None:
        import ray

        gpus = self._gpus_a_rank()
        actor = ray.remote(RankProcess).options(num_cpus=1, num_gpus=gpus, max_restarts=0)
        made = [actor.remote(rank) for rank in range(self.plan.limits.ranks)]
        self._members = [_Member(each, each.hello.remote()) for each in made]
        self._attempt += 1
        self._lost = None

    def _run_members(self) -> None:
        """All have said hello: they may meet."""
        meet = self.scratch / f"meet-{self._attempt}-{secrets.token_hex(4)}"
        for rank, member in enumerate(self._members):
            job = {
                "plan": self.plan,
                "feed_factory": self.feed_factory,
                "feed": self.feed_settings[rank],
                "coordinator": self.coordinator,
                "keys": self.keys,
                "patience_s": self.patience_s,
                "silence_s": self.silence_s,
                "meet": f"file://{meet}",
                "nccl": self._gpus_a_rank() == 1,
                "log": str(self._log(rank)),
                "metrics_port": self.metrics_ports[rank] if self.metrics_ports else 0,
            }
            member.running = member.actor.run.remote(job)

    def _look(self, rank: int, member: _Member) -> str | None:
        """Take what a rank has given since the last time: a greeting, an outcome, an error.

        Gives a sentence when the error is one that a restart would only repeat.
        """
        import ray

        waited = member.running if member.running is not None else member.greeting
        if waited is None:
            return None
        if not ray.wait([waited], timeout=0)[0]:
            if member.gone:
                self._note_loss(f"Rank {rank} died (process {member.pid} is gone)", at_once=True)
            return None
        member.greeting, member.running = None, None
        try:
            value = ray.get(waited)
        except ray.exceptions.RayActorError as error:
            self._note_loss(f"Rank {rank} died ({_first_line(error)})", at_once=True)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if type(cause).__name__ != "RankLost":
                return (
                    f"Training failed on rank {rank}: {type(cause).__name__}: {cause} "
                    f"The log is {self._log(rank)}."
                )
            self._note_loss(f"Rank {rank} lost the others", at_once=False)
        else:
            if member.pid:
                member.outcome = value
            else:
                member.meet(value)
        return None

    def _fail(self, why: str) -> list[str]:
        self.failure = why
        self._kill()
        return [why]

    def _note_loss(self, why: str, at_once: bool) -> None:
        """Whoever lost the others is seldom to blame: the culprit gets a moment to be named."""
        due = time.monotonic() + (0.0 if at_once else GRACE_S)
        if self._lost is None or at_once:
            self._lost = (due, why)

    def _restart(self, why: str) -> list[str]:
        found = snapshot.newest(self.plan.saving.snapshots)
        batch = -1 if found is None else found.batch
        self._futile = (batch, self._futile[1] + 1 if batch == self._futile[0] else 1)
        if self._futile[1] > FUTILE:
            return self._fail(
                f"{why}, for the {self._futile[1]}th time without a new snapshot, so training "
                f"was given up. The ends of the logs:\n{self._tails()}"
            )
        self._kill()
        self.restarts += 1
        self._start_members()
        where = "the start" if found is None else f"the snapshot at batch {batch}"
        return [f"{why}; all ranks go back to {where}."]

    def _kill(self) -> None:
        """End the processes, however they hang."""
        import ray

        for member in self._members:
            with contextlib.suppress(Exception):  # Ray may be going down, too
                ray.kill(member.actor, no_restart=True)
        for member in self._members:
            with contextlib.suppress(psutil.Error):
                if member.process is not None:
                    member.process.kill()
        self._members = []

    def _gpus_a_rank(self) -> float:
        """1, or a share of one where there are fewer GPUs than ranks, or 0."""
        import ray

        gpus = ray.cluster_resources().get("GPU", 0.0)
        if self.plan.learning.device == "cpu" or not gpus:
            return 0
        return float(min(1.0, int(1000 * gpus / self.plan.limits.ranks) / 1000))

    def _log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"

    def _tails(self) -> str:
        parts = []
        for rank in range(self.plan.limits.ranks):
            log = self._log(rank)
            lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
            parts.append("\n".join([f"{log}:", *lines[-TAIL_LINES:]]))
        return "\n".join(parts)


@contextlib.contextmanager
def _ray(scratch: Path, n: int) -> Iterator[None]:
    """A Ray of our own in this process, and no trace of it afterwards; or the caller's as it is."""
    known = sys.modules.get("ray")
    if known is not None and known.is_initialized():
        yield
        return
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would run the ranks at niceness 15, behind every solver of the machine.
        "RAY_worker_niceness": "0",
        # Measured by nobody here, they grow its raylet and its logs by megabytes an hour.
        "RAY_enable_metrics_collection": "0",
        "RAY_event_stats": "0",
        "RAY_event_stats_print_interval_ms": "0",
        # Ray itself would write a token into the home folder.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }
    changes = {name: os.environ.get(name, value) for name, value in wanted.items()}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)  # before the import, which reads them
    import ray

    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=_short_enough(scratch)))
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(
            num_cpus=n,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(folder),
        )
        if main:  # Ray puts a handler of its own there
            signal.signal(signal.SIGTERM, handler)
        # There is no setting for it: Ray prints a paragraph about every process that is killed,
        # into the middle of a live display. `poll` says the same in a sentence.
        ray._private.worker.print_to_stdstream = _print_nothing
        yield
    finally:
        children = psutil.Process().children(recursive=True)
        ray.shutdown()
        _wait_for_the_end(children, folder)
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _wait_for_the_end(children: list[psutil.Process], folder: Path) -> None:
    """Ray's processes are those that name its folder; they get a moment, then they are killed."""
    theirs = []
    for child in children:
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("ray::") or str(folder) in " ".join(child.cmdline()):
                theirs.append(child)
    _, left = psutil.wait_procs(theirs, timeout=5)
    for child in left:
        with contextlib.suppress(psutil.Error):
            child.kill()


def _short_enough(scratch: Path) -> str | None:
    """The scratch folder if Ray's sockets fit below it, else None for the usual one."""
    return str(scratch) if len(str(scratch)) + RAY_PATH <= SOCKET_PATH else None


def _redirect(log: Path) -> None:
    """What this process says goes to its log, a crash's last words too."""
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr)


def _silent(body: dict[str, Any]) -> None:
    """The report of a rank that has nobody to report to."""


def _print_nothing(*_: Any, **__: Any) -> None:
    """In place of what Ray prints."""


def _first_line(error: Exception) -> str:
    return (
        str(error).strip().splitlines()[0].rstrip(". ") if str(error).strip() else "no reason given"
    )
