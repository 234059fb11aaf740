"""A scripted coordinator for tests of agents, and eyes for the processes that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from penstock.control import decode, encode
from penstock.processes import processes

DEADLINE_S = 20.0


class Boss:
    """Answers beats with what `orders` says; remembers every beat."""

    def __init__(self, log_dir: Path, address: str = "tcp://127.0.0.1:*") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.bind(address)
        self.address = self.socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.log_dir = log_dir
        self.beats: list[dict[str, Any]] = []
        self.order: dict[str, Any] = {"order": "go_on"}
        self.agents: list[subprocess.Popen[bytes]] = []

    def hire(self, command: Sequence[str], *options: str) -> subprocess.Popen[bytes]:
        """Start an agent for the command; it beats ten times a second."""
        agent = subprocess.Popen(
            [
                sys.executable, "-m", "penstock.agent",
                "--coordinator", self.address, "--agent", "a1", "--log-dir", str(self.log_dir),
                "--beat-s", "0.1", *options, "--", *command,
            ],
            start_new_session=True,
        )  # fmt: skip
        self.agents.append(agent)
        return agent

    def start(self, worker: str = "w1") -> dict[str, Any]:
        """Wait for an idle agent, order it to start, and wait until its worker is there."""
        self.until(lambda beat: beat["state"] in ("idle", "exited"))
        self.order = {"order": "start", "worker": worker}
        return self.until(lambda beat: beat["worker"] == worker)

    def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Serve beats until one meets the condition; returns it."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for beat in self.serve():
                if met(beat):
                    return beat
        raise AssertionError(f"no such beat came; the last was {self.beats[-1:]}")

    def serve(self) -> list[dict[str, Any]]:
        """Answer what is there now, waiting a little for something."""
        served = []
        if self.socket.poll(50):
            identity, frame = self.socket.recv_multipart()
            beat = decode(frame)
            self.beats.append(beat)
            served.append(beat)
            order = {**self.order, "kind": "orders", "request": beat["request"]}
            if self.order["order"] == "start" and beat["worker"] == self.order["worker"]:
                order = {"kind": "orders", "order": "go_on", "request": beat["request"]}
            self.socket.send_multipart([identity, encode(order)])
        return served

    def serve_until(self, met: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not met():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            self.serve()

    def die_and_come_back(self) -> None:
        self.socket.close(linger=0)
        self.context.term()  # only then is the port free
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.bind(self.address)

    def close(self) -> None:
        deadline = time.monotonic() + 10.0
        for agent in self.agents:
            agent.send_signal(signal.SIGTERM)
            while agent.poll() is None and time.monotonic() < deadline:
                self.serve()
            agent.kill()
            agent.wait()
        self.socket.close(linger=0)
        self.context.term()


def descendants(root: int) -> list[int]:
    """The living processes under root, without it."""
    table = processes()
    found = [root]
    for pid in found:
        found += [p.pid for p in table.values() if p.parent == pid and p.alive]
    return found[1:]


def named(root: int, word: str) -> list[int]:
    """The living descendants of root whose command line begins with the word."""
    return [pid for pid in descendants(root) if command_line(pid).startswith(word)]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    process = processes().get(pid)
    return process is not None and process.alive


def cpu_seconds(pid: int) -> float:
    """What it has used of a core so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        os.sched_yield()
        time.sleep(0.01)
