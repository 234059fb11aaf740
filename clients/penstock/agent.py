"""The small parent of one worker: starts its command, beats for it, keeps its stderr, ends it all.

A launcher starts it: python -m penstock.agent --coordinator A --agent NAME --log-dir D -- CMD...
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.control import Asker, NoAnswer
from penstock.errors import KeyFileError, KeyRefused
from penstock.group import Group, Keeper
from penstock.keys import ClientKeys
from penstock.processes import adopt_orphans, die_with_parent

LOOK_S = 0.1  # how often the command is asked whether it has ended
LEFT, COORDINATOR_LOST, NO_KEY = 0, 4, 5  # exit codes; 128 + n after signal n


class Agent:
    """One agent's life: idle, running, exited, and again, as the coordinator orders."""

    def __init__(
        self,
        asker: Asker,
        name: str,
        command: Sequence[str],
        log_dir: Path,
        keeper: Keeper,
        incarnation: str,
        *,
        beat_s: float,
        silence_s: float,
        patience_s: float,
    ) -> None:
        self._asker = asker
        self._name = name
        self._argv = list(command)
        self._log_dir = log_dir
        self._keeper = keeper
        self._incarnation = incarnation
        self._beat_s = beat_s
        self._silence_s = silence_s
        self._patience_s = patience_s
        self._group: Group | None = None
        self._exit: int | None = None  # set: end the command, say goodbye and exit with this
        self._told_tail = ""
        self._next_watch = 0.0

    def run(self) -> int:
        """Live until told to leave; returns the exit code. No process of the command is left."""
        next_beat = 0.0
        while True:
            changed = self._look()
            now = time.monotonic()
            if self._exit is not None and self._quiet():
                self._say_goodbye()
                return self._exit
            if changed or now >= next_beat:
                self._asker.post("beat", **self._beat())
                next_beat = now + self._beat_s
            reply = self._asker.poll(LOOK_S)
            if not self._asker.pending and reply is None:
                time.sleep(LOOK_S)
            if reply is not None:
                self._obey(reply)
                # Orders are answers: after a start, do not wait a beat to say that it runs.
                next_beat = 0.0 if reply.get("order") == "start" else next_beat
            elif self._asker.waited_s > self._patience_s and self._exit is None:
                print(
                    f"penstock agent {self._name}: the coordinator at {self._asker.address} was "
                    f"silent for {self._patience_s:g} s; ending the worker.",
                    file=sys.stderr,
                )
                self.leave(COORDINATOR_LOST)

    def leave(self, exit_code: int) -> None:
        """End the command and then this agent; signal handlers call it too."""
        if self._exit is None:
            self._exit = exit_code

    def _look(self) -> bool:
        """Watch the command; True when it has just finished."""
        group = self._group
        if group is None or group.finished:
            return False
        if self._exit is not None:
            group.end()
        now = time.monotonic()
        if group.exited() or group.ending or now >= self._next_watch:
            self._next_watch = now + self._beat_s  # reading all of /proc costs milliseconds
            group.watch()
        return group.finished

    def _quiet(self) -> bool:
        return self._group is None or self._group.finished

    def _obey(self, reply: dict[str, Any]) -> None:
        order = reply.get("order")
        if order == "start" and self._quiet() and self._exit is None:
            worker = str(reply["worker"])
            environment = {
                "PENSTOCK_COORDINATOR": self._asker.address,
                "PENSTOCK_WORKER": worker,
                "PENSTOCK_AGENT": self._name,
                "PENSTOCK_INCARNATION": self._incarnation,
            }
            self._told_tail = ""
            self._group = Group(self._argv, worker, environment, self._log_dir, self._keeper)
        elif order == "end" and self._group is not None:
            self._group.end()
        elif order == "leave":
            self.leave(LEFT)
        elif reply.get("kind") == "refused":
            print(f"penstock agent {self._name}: refused: {reply.get('why')}", file=sys.stderr)

    def _beat(self) -> dict[str, Any]:
        group = self._group
        beat: dict[str, Any] = {
            "agent": self._name,
            "incarnation": self._incarnation,
            "agent_pid": os.getpid(),
            "worker": "",
            "pid": 0,
            "state": "idle",
            "exit_code": None,
            "stderr_tail": "",
            "log": "",
            "stopped_s": 0.0,
        }
        if group is not None:
            stopped_s = round(group.stopped_s, 3)
            running = "stopped" if stopped_s >= self._silence_s else "running"
            tail = group.tail()
            beat.update(
                worker=group.worker,
                pid=group.pid,
                state="exited" if group.finished else running,
                exit_code=group.exit_code if group.finished else None,
                log=str(group.log),
                stopped_s=stopped_s,
            )
            if group.finished or tail != self._told_tail:  # a running one's only when it is new
                beat["stderr_tail"] = self._told_tail = tail
        return beat

    def _say_goodbye(self) -> None:
        with contextlib.suppress(NoAnswer):  # then the coordinator will notice our silence
            self._asker.ask("beat", timeout_s=1.0, **{**self._beat(), "state": "left"})


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the agent."""
    parser = argparse.ArgumentParser(prog="python -m penstock.agent", description=__doc__)
    parser.add_argument("--coordinator", required=True, help="its address, tcp://HOST:PORT")
    parser.add_argument("--agent", required=True, help="this agent's name, unique in the campaign")
    parser.add_argument("--log-dir", required=True, type=Path)
    parser.add_argument("--beat-s", type=float, default=1.0)
    parser.add_argument("--silence-s", type=float, default=15.0)
    parser.add_argument("--coordinator-patience-s", type=float, default=120.0)
    parser.add_argument("--die-with-parent", action="store_true")
    parser.add_argument("command", nargs="+", help="after --: what a worker is started with")
    options = parser.parse_args(argv)
    if options.die_with_parent:
        die_with_parent(signal.SIGTERM)
    adopt_orphans()
    incarnation = os.urandom(6).hex()
    keeper = Keeper(f"PENSTOCK_INCARNATION={incarnation}")
    try:
        keys = ClientKeys.from_environment()  # the worker's, too: it inherits the environment
        with Asker(options.coordinator, f"agent/{options.agent}", keys=keys) as asker:
            agent = Agent(
                asker,
                options.agent,
                options.command,
                options.log_dir,
                keeper,
                incarnation,
                beat_s=options.beat_s,
                silence_s=options.silence_s,
                patience_s=options.coordinator_patience_s,
            )

            def leave(number: int, _frame: FrameType | None) -> None:
                agent.leave(128 + number)

            signal.signal(signal.SIGTERM, leave)
            signal.signal(signal.SIGINT, leave)
            exit_code = agent.run()
    except (KeyFileError, KeyRefused) as error:
        print(f"penstock agent {options.agent}: {error}", file=sys.stderr)
        return NO_KEY  # a worker that runs is ended by the keeper
    keeper.close()
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
