"""A coordinator that follows a script, in a thread of the test; receivers and clients are real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from penstock_server.curve import Guard
from penstock_server.receiver import ReceiverSettings

CAMPAIGN = 0x1234


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ScriptedCoordinator(threading.Thread):
    """Hands out the given assignments in order; keeps every request that came."""

    def __init__(
        self,
        welcome: dict[str, Any],
        assignments: list[dict[str, Any]],
        server_keys: str | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._context = zmq.Context()
        self.guard = Guard(self._context, server_keys, "scripted")
        self._socket = self._context.socket(zmq.ROUTER)
        self.guard.protect(self._socket)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self.welcome, self.assignments = welcome, list(assignments)
        self.requests: list[dict[str, Any]] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.delivered: set[int] = set()
        self.refused: list[dict[str, Any]] = []
        self.orders: dict[str, Any] = {"production": "running", "stop": False, "retired": []}
        self._answers: dict[tuple[str, int], dict[str, Any]] = {}
        self._ended = False

    def run(self) -> None:
        while not self._ended:
            self.guard.turn()
            if not self._socket.poll(20):
                continue
            identity, frame = self._socket.recv_multipart()
            request = json.loads(frame)
            answer = self._answer(request)
            answer["request"] = request["request"]
            self._socket.send_multipart([identity, json.dumps(answer).encode()])

    def stop(self) -> None:
        self._ended = True
        self.join(5)
        self.guard.close()
        self._socket.close(linger=0)
        self._context.term()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        kind = request["kind"]
        if kind == "report":
            self.reports[request["shard"]] = request
            self.delivered.update(int(entry[0]) for entry in request["delivered"])
            self.refused.extend(request["refused"])
            return {"kind": "orders", **self.orders}
        self.requests.append(request)
        if kind == "hello":
            return {"kind": "welcome", **self.welcome}
        if kind == "next":
            key = (request["worker"], request["sequence"])
            if key not in self._answers:
                more = self.assignments and not request.get("leaving")
                self._answers[key] = (
                    {"kind": "assignment", **self.assignments.pop(0)} if more else {"kind": "over"}
                )
            return dict(self._answers[key])
        return {"kind": "orders"}


def assignment(
    simulation: int, shards: list[str], lease: int | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "simulation": simulation, "lease": lease or simulation + 1, "role": "train", "attempt": 1,
        "seed": simulation, "parameters": {"a": float(simulation), "b": 0.5}, "shards": shards,
        "wanted": None, **more,
    }  # fmt: skip


class ReceiverProcess:
    """A real receiver on a slab of its own; can be killed and started again."""

    def __init__(self, tmp_path: Path, coordinator: str, shard: str = "0", **settings: Any) -> None:
        shape = settings.pop("shape", [8, 6])
        defaults: dict[str, Any] = {
            "shard": shard,
            "campaign": CAMPAIGN,
            "folder": str(tmp_path / f"shm-{shard}"),
            "address": f"tcp://127.0.0.1:{free_port()}",
            "feed": f"ipc://{tmp_path}/feed-{shard}",
            "coordinator": coordinator,
            "policy": "reservoir",
            "slots": 64,
            "segment_steps": 1,
            "window": 1,
            "stride": 1,
            "max_steps": 100,
            "max_parts": 4,
            "rows": 1,
            "seed": 1,
            "threshold": 4,
            "most_simulations": 10_000,
            "parameters": ["a", "b"],
            "fields": {"u": {"shape": shape, "dtype": "float32"}},
            "inputs": {},
            "order": ["u"],
            "patience_s": 30.0,
        }
        self.settings = ReceiverSettings(**{**defaults, **settings})
        self._file = tmp_path / f"receiver-{shard}.json"
        self.settings.save(self._file)
        self._log = tmp_path / f"receiver-{shard}.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock_server.receiver", "--settings", str(self._file)],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def log(self) -> str:
        return self._log.read_text()


def welcome(receivers: list[ReceiverProcess], **stream: Any) -> dict[str, Any]:
    settings = receivers[0].settings
    fields = {n: {**f, "role": "state"} for n, f in settings.fields.items()}
    fields |= {n: {**f, "role": "input"} for n, f in settings.inputs.items()}
    return {
        "campaign": CAMPAIGN,
        "name": "test",
        "fields": {name: fields[name] for name in settings.order},
        "stream": {"segment_steps": settings.segment_steps, "window_bytes": 1 << 20, **stream},
        "shards": {
            r.settings.shard: {"address": r.settings.address, "epoch": 1} for r in receivers
        },
    }


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "it") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"Waited {timeout_s} s for {what}."
        time.sleep(0.01)


def client_environment(coordinator: str, worker: str) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_COORDINATOR": coordinator, "PENSTOCK_WORKER": worker}
