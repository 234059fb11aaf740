"""Everything that a run has started on this machine: looked at, written down, ended in order.

The supervisor decides what is started and when; this is where it then stands.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from penstock.control import Asker, NoAnswer
from penstock_server import slab
from penstock_server.launch.local import LocalLauncher
from penstock_server.launch.ray_ranks import RankGroup
from penstock_server.processes import ServerProcess
from penstock_server.run_folder import RunFolder
from penstock_server.run_records import RunRecords

PAUSE_S = 0.05
STOP_S = 20.0  # for each kind of process to end by itself
RECEIVER_S = 3.0  # for a receiver to hear that it may leave
KEEPER_S = 600.0  # for the keeper to write what is left


class RunProcesses:
    """Coordinator, receivers, keeper and validator by name; the agents; the ranks."""

    def __init__(
        self, run: RunFolder, records: RunRecords, shards: list[str], say: Callable[[str], None]
    ) -> None:
        self._run, self._records, self._shards, self._say = run, records, shards, say
        self.server: dict[str, ServerProcess] = {}
        self.launcher: LocalLauncher | None = None
        self.ranks: RankGroup | None = None

    def add(self, name: str, module: str, env: Mapping[str, str] | None = None) -> None:
        """Starts a server process; its settings file has been written."""
        settings, log = self._run.settings / f"{name}.json", self._run.logs / f"{name}.log"
        self.server[name] = ServerProcess(name, module, settings, log, env or {})
        self.server[name].start()

    def dead(self, ending: bool) -> Iterator[tuple[ServerProcess, int]]:
        """Server processes that ended and should not have, with their exit codes."""
        for process in self.server.values():
            code = process.ended()
            # Whoever was told to leave ends with 0; the coordinator leaves last.
            told = code == 0 and (ending or process.name != "coordinator")
            if code is not None and not told:
                yield process, code

    def note(self) -> None:
        """Who runs under which process id, and what they have used."""
        agents = self.launcher.pids if self.launcher is not None else {}
        pids = self.ranks.pids if self.ranks is not None else []
        ranks = {f"rank-{rank}": pid for rank, pid in enumerate(pids) if pid}
        server = {name: process.pid for name, process in self.server.items()}
        self._records.processes(
            {**server, **agents, **ranks},
            {"solvers": list(agents.values()), "training": list(ranks.values())},
        )

    def end_workers(self) -> None:
        """Agents leave by themselves once there is nothing more to do; the rest is ended."""
        if self.launcher is None:
            return
        deadline = time.monotonic() + STOP_S
        while self.launcher.alive and time.monotonic() < deadline:
            self.launcher.poll()
            self.note()
            time.sleep(PAUSE_S)
        self.launcher.stop(STOP_S)

    def end_production(self) -> None:
        """Workers, receivers and keeper have done their part; their memory is given back."""
        self.end_workers()
        for shard in self._shards:
            self.server[f"receiver-{shard}"].stop(STOP_S)
        self._finish_keeper()
        for shard in self._shards:
            self._run.clear_shard(shard)

    def go_home(self, asker: Asker | None) -> None:
        """Agents first, so that no worker talks to a shard that is gone; the coordinator last.

        May be called twice.
        """
        asked = self.server.get("coordinator")
        alive = asked is not None and asked.ended() is None
        if self.launcher is not None and asker is not None and alive:
            with contextlib.suppress(NoAnswer, ValueError):
                asker.ask("stop", timeout_s=5.0, why="the supervisor ends the run.")
        self.end_workers()
        for name, process in self.server.items():
            if name.startswith("receiver") and asked is not None and asked.ended() is None:
                process.wait(RECEIVER_S)
            if name not in ("coordinator", "keeper"):
                process.stop(STOP_S)
        self._finish_keeper()
        if asked is not None and not asked.wait(5.0):
            asked.stop(STOP_S)

    def _finish_keeper(self) -> None:
        """It stores what is left, though it may have to be started once more for that."""
        keeper = self.server.get("keeper")
        if keeper is None:
            return
        self._run.keeper_finish.touch()
        if all(slab.exists(self._run.shard(shard)) for shard in self._shards):
            deadline = time.monotonic() + KEEPER_S
            while keeper.ended() != 0 and time.monotonic() < deadline:
                if keeper.ended() is not None and not keeper.restart():
                    self._say(f"The data set is not complete; see {keeper.log}.\n{keeper.tail()}")
                    break
                time.sleep(PAUSE_S)
        keeper.stop(STOP_S)
