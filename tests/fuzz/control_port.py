"""Mutated requests on the coordinator's port: its decoding and its state machine, without a socket.

An input picks valid requests of workers, agents, receivers, ranks and the supervisor, and changes
their bytes or their values. Whatever comes, the answer is a reply or a refusal in a sentence, which
can be encoded; no simulation is completed that no shard confirmed.

`make fuzz` runs it coverage-guided, `tests/unit/test_fuzz_ports.py` on random scripts.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parent))

from coordinator_desk import settings
from data_port import Script

from penstock.control import decode, encode
from penstock_server.coordinator import State
from penstock_server.coordinator.requests import NotAccepted, parse

RENEWED = 200  # inputs on one state
REQUESTS: list[dict[str, Any]] = [
    {"kind": "hello", "worker": "w0", "agent": None, "pid": 1, "host": "h", "parts": 1,
     "client": "python"},
    {"kind": "next", "worker": "w0", "sequence": 1, "previous": None},
    {"kind": "next", "worker": "w0", "sequence": 2, "previous": {
        "simulation": 0, "lease": 1, "outcome": "ended", "steps": 4, "reason": ""}},
    {"kind": "fail", "worker": "w0", "simulation": 0, "lease": 1, "outcome": "failed", "steps": 1,
     "reason": "diverged"},
    {"kind": "beat", "agent": "a1", "worker": "w0", "state": "running", "pid": 2, "host": "h"},
    {"kind": "book"},
    {"kind": "report", "shard": "0", "address": "tcp://127.0.0.1:2", "epoch": 1, "pid": 3,
     "counters": {}, "blocked": False, "delivered": [[0, 1, 4]], "refused": [], "progress": []},
    {"kind": "progress", "rank": 0, "state": "training", "batches": 3},
    {"kind": "validated", "batches": 3, "value": 0.5},
    {"kind": "status"},
    {"kind": "fault", "process": "rank-0", "why": "killed"},
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**63, 2**70, 1e308, "", "0", "w0", "\x00", [], [[]], [0], {}, {"a": []},
]  # fmt: skip


def nested(script: Script) -> bytes:
    """A request with one value that is nested up to thousands of levels deep."""
    request = json.dumps({**REQUESTS[script.byte() % len(REQUESTS)], "request": None}).encode()
    n = script.short() % 4000
    value = b"[" * n + (b"NaN", b"", b"1e999")[script.byte() % 3] + b"]" * n
    return request.replace((b"null", b"1", b"[]")[script.byte() % 3], value, 1)


class ControlPort:
    """Keeps a coordinator's state over many inputs, and makes a new one now and then."""

    def __init__(self) -> None:
        self.frames = 0
        self._inputs = 0
        self._build()

    def close(self) -> None:
        """Nothing is open."""

    def take(self, data: bytes) -> None:
        """One input; raises AssertionError, or whatever the coordinator should not raise."""
        self._inputs += 1
        if self._inputs % RENEWED == 0:
            self._build()
        script = Script(data)
        for _ in range(1 + script.byte() % 8):
            self.frames += 1
            self._answer(self._frame(script))

    def _frame(self, script: Script) -> bytes:
        choice = script.byte()
        if choice >= 250:
            return script.rest(script.byte())
        if choice >= 240:
            return nested(script)
        request = json.loads(json.dumps(REQUESTS[choice % len(REQUESTS)]))
        request["request"] = script.byte()
        for _ in range(script.byte() % 3):
            target = request
            keys = list(target)
            key = keys[script.byte() % len(keys)]
            inner = target[key]
            if isinstance(inner, dict) and inner and script.byte() & 1:
                target, key = inner, list(inner)[script.byte() % len(inner)]
            if script.byte() & 1:
                target[key] = deepcopy(VALUES[script.byte() % len(VALUES)])
            else:
                target.pop(key)
            if not request:
                break
        frame = bytearray(encode(request))
        for _ in range(script.byte() % 2):
            frame[script.short() % len(frame)] ^= script.byte()
        return bytes(frame)

    def _answer(self, frame: bytes) -> None:
        self._now += 0.01
        try:
            message = decode(frame)
        except ValueError:
            return
        try:
            event = parse(message)
        except NotAccepted:
            return
        reply = self._state.handle(event, self._now).reply
        assert "kind" in reply
        assert decode(encode(reply)) is not None

    def _build(self) -> None:
        self._now = 0.0
        self._state = State(settings(train=4, validation=1), None, self._now)
