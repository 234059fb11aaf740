"""Plays one scenario against a program: sockets, the program's process, and the verdict."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from contract import sent
from desk import Desk
from scenarios import Scenario
from shard import Shard

from penstock.wire import Kind

GOLDEN = Path(__file__).parents[1] / "golden"
Router = zmq.Socket[bytes]

BURST = 100  # messages of a shard in one turn: a wrong client may never stop


def play(
    scenario: Scenario,
    command: Sequence[str],
    n_parts: int,
    prefix: Sequence[str],
    uses: Collection[str] = (),
) -> list[str]:
    """Runs the program through the scenario; the problems that were found, none if it passed.

    uses: of what a client may do ("bunches", "memory") what this one has to do where it can.
    """
    arguments = scenario.arguments or ("--fields", "".join(scenario.fields))
    with Stage(scenario, n_parts) as stage:
        stage.run([*prefix, *command, *arguments])
        return stage.verdict() + stage.unused(uses)


class Stage:
    """The sockets of one scenario. The program is ended with the stage."""

    def __init__(self, scenario: Scenario, n_parts: int) -> None:
        if scenario.undeclared:  # in the order of the program's layouts, in double precision
            declared = {n: {**f, "dtype": "float64"} for n, f in scenario.fields.items()}
            scenario = replace(scenario, fields=declared)
        self._scenario, self._n_parts = scenario, n_parts
        self._context: zmq.Context[Router] = zmq.Context()
        self._control = self._bind("tcp://127.0.0.1:*")
        self._data = [self._bind("tcp://127.0.0.1:*") for _ in range(scenario.shards)]
        self._shards = [Shard(scenario, i, n_parts) for i in range(scenario.shards)]
        self._closed_until: dict[int, float] = {}
        names = [chr(ord("A") + i) for i in range(scenario.shards)]
        self._addresses = {n: _address(s) for n, s in zip(names, self._data, strict=True)}
        self._control_address = _address(self._control)
        self._desk = Desk(scenario, "under-test", n_parts, self._addresses)
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stage
        self._late = False
        self._elapsed_s = 0.0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # mpirun takes its ranks along
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._stderr.close()
        self._context.destroy(linger=0)

    def run(self, argv: Sequence[str]) -> None:
        """Starts the program and answers it until it has ended."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if not self._scenario.alone:
            environment |= {
                "PENSTOCK_COORDINATOR": self._control_address, "PENSTOCK_WORKER": "under-test",
            }  # fmt: skip
        self._process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr,
            env=environment, start_new_session=True,
        )  # fmt: skip
        began = time.monotonic()
        deadline = began + self._scenario.timeout_s
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._late = True
                return
            self._turn(0.02)
        self._elapsed_s = time.monotonic() - began
        for _ in range(5):  # what it said last, BYE for one
            self._turn(0.01)

    def _turn(self, timeout_s: float) -> None:
        now = time.monotonic()
        sockets = [self._control, *self._data]
        poller = zmq.Poller()
        for socket in sockets:
            if not socket.closed:
                poller.register(socket, zmq.POLLIN)
        poller.poll(round(1000 * timeout_s))
        self._read_control()
        for i, shard in enumerate(self._shards):
            self._reopen(i, now)
            socket = self._data[i]
            for _ in range(BURST):
                if socket.closed:
                    break
                try:
                    identity, *frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                for to, answer in shard.take(identity, frames, now):
                    socket.send_multipart([to, *answer])
                if shard.reopening:
                    shard.reopening = False
                    socket.close(linger=0)
                    self._closed_until[i] = now + 0.3
            for to, answer in shard.tick(now):
                socket.send_multipart([to, *answer])

    def _read_control(self) -> None:
        while True:
            try:
                identity, *frames = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            for answer in self._desk.take(b"".join(frames)):
                self._control.send_multipart([identity, answer])
            if self._desk.reopening:
                self._desk.reopening = False
                self._control.close(linger=0)
                self._control = self._bind(self._control_address)

    def _reopen(self, i: int, now: float) -> None:
        if i in self._closed_until and now >= self._closed_until[i]:
            del self._closed_until[i]
            self._data[i] = self._bind(list(self._addresses.values())[i])

    def _bind(self, address: str) -> Router:
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        deadline = time.monotonic() + 5
        while True:
            try:
                socket.bind(address)
                return socket
            except zmq.ZMQError:  # the port of a socket that was closed a moment ago
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    # -- the verdict -----------------------------------------------------------------------------

    def verdict(self) -> list[str]:
        """What was wrong, in sentences."""
        scenario = self._scenario
        problems = [*self._desk.problems, *(p for s in self._shards for p in s.problems)]
        problems += self._process_problems()
        if scenario.exit_code or scenario.alone:
            return problems
        if not self._desk.left:
            problems.append("The program did not say goodbye to the coordinator.")
        outcomes = scenario.outcomes or ("ended",) * len(scenario.assignments)
        told = [str(p.get("outcome")) for p in self._desk.previous]
        if told != list(outcomes):
            problems.append(f"The outcomes told are {told}, expected were {list(outcomes)}.")
        for outcome, previous in zip(outcomes, self._desk.previous, strict=False):
            if outcome != "ended" and scenario.reason not in str(previous.get("reason")):
                problems.append(f"The reason told is {previous.get('reason')!r}.")
        if scenario.undeclared and list(self._desk.declared or {}) != list(scenario.fields):
            problems.append(f"The fields declared are {list(self._desk.declared or {})}.")
        for assignment, outcome in zip(scenario.assignments, outcomes, strict=True):
            problems += self._simulation_problems(assignment, outcome)
        return problems + self._connection_problems() + self._golden_problems()

    def unused(self, uses: Collection[str]) -> list[str]:
        """What the program does not do, and is said to."""
        offered, used = self._scenario.offers, {u for shard in self._shards for u in shard.used}
        if offered not in uses or offered in used:
            return []
        return [f"The program is said to use {offered}, and did not."]

    def _process_problems(self) -> list[str]:
        assert self._process is not None
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace")
        last = said.strip().splitlines()[-3:]
        if self._late:
            return [f"It did not end within {self._scenario.timeout_s:g} s; it said {last}."]
        problems, expected = [], self._scenario.exit_code
        code = self._process.returncode
        if (code != expected) if not expected or self._n_parts == 1 else not code:
            problems.append(f"The exit code is {code}, expected was {expected}; it said {last}.")
        if self._scenario.stderr not in said:
            problems.append(f"It did not say {self._scenario.stderr!r} but {last}.")
        return problems

    def _connection_problems(self) -> list[str]:
        problems = []
        parts = [p for shard in self._shards for p in shard.parts.values()]
        if not all(part.gone for part in parts):
            problems.append("A part left without BYE.")
        greetings = {part.greeting for part in parts}
        wanted = self._scenario.greetings
        if max(greetings) < 2 if wanted is None else greetings != {wanted}:
            problems.append(f"The last greetings of the parts are {sorted(greetings)}.")
        asked = [sum(s.parts[i].probes for s in self._shards) for i in range(self._n_parts)]
        if min(asked) < self._scenario.least_probes:
            problems.append("A part that waited did not send PROBE.")
        if max(part.probes for part in parts) > 2 + 1.2 * self._elapsed_s:
            problems.append("PROBE came more than once a second.")
        return problems

    def _simulation_problems(self, assignment: Mapping[str, Any], outcome: str) -> list[str]:
        lease, given = int(assignment["lease"]), assignment["parameters"]
        every = max(int(f["every"]) for f in self._scenario.fields.values())
        n_steps = -(-self._scenario.contract.calls(given) // every)
        last = (Kind.END, n_steps) if outcome == "ended" else (Kind.FAIL, 0)
        ended = [p.ended.get(lease) for s in self._shards for p in s.parts.values()]
        problems = []
        if set(ended) != {last}:
            problems.append(f"Lease {lease} ended with {ended}, expected was {last} from all.")
        if outcome == "refused":
            return problems
        length = int(self._scenario.stream.get("segment_steps", 1))
        wanted = assignment["wanted"]
        for step in range(n_steps):
            if wanted is None or any(a <= step // length <= b for a, b in wanted):
                problems += self._step_problems(assignment, step, every)
        for shard in self._shards:
            inputs = {p: shard.inputs.get((lease, p)) for p in shard.parts}
            problems += self._assembled(shard, assignment, inputs, 0, inputs=True)
        return problems[:5]

    def _step_problems(self, assignment: Mapping[str, Any], step: int, every: int) -> list[str]:
        length = int(self._scenario.stream.get("segment_steps", 1))
        shard = self._shards[step // length % len(self._shards)]
        stored = {p: shard.stored.get((int(assignment["lease"]), step, p)) for p in shard.parts}
        return self._assembled(shard, assignment, stored, step * every, inputs=False)

    def _assembled(
        self,
        shard: Shard,
        assignment: Mapping[str, Any],
        payloads: Mapping[int, list[bytes] | None],
        call: int,
        inputs: bool,
    ) -> list[str]:
        """Puts what the parts sent together by their plans, and compares it with the contract."""
        problems = []
        names = list(self._scenario.fields)
        chosen = [n for n in names if (n in self._scenario.contract.inputs) == inputs]
        what = "The inputs" if inputs else f"Call {call}"
        for position, name in enumerate(chosen):
            spec = self._scenario.fields[name]
            given = assignment["seed"], assignment["parameters"]
            expected = sent(self._scenario.contract.field(name, call, *given), spec)
            found, covered = np.zeros_like(expected), np.zeros(expected.shape, int)
            for part, frames in payloads.items():
                plans = shard.used_plans.get((int(assignment["lease"]), part))
                if frames is None or plans is None:
                    problems.append(
                        f"{what} of lease {assignment['lease']}: part {part} is missing."
                    )
                    continue
                _put(found, covered, plans[names.index(name)], frames[position])
            if not problems and (covered != 1).any():
                problems.append(f"{name!r} is not covered exactly once by the plans.")
            if not problems and not self._scenario.contract.agrees(found, expected):
                problems.append(
                    f"{what} of lease {assignment['lease']}: {name!r} has the values "
                    f"{found.ravel()[:4]}..., expected were {expected.ravel()[:4]}..."
                )
        return problems

    def _golden_problems(self) -> list[str]:
        problems = []
        for name, (position, n_frames) in self._scenario.golden.items():
            files = sorted(GOLDEN.glob(f"{name}.[0-9].bin"))[:n_frames]
            kind = Kind[name.upper()]
            key = (kind, 41 if kind == Kind.PART else 0)
            came = self._shards[position].parts[1].golden.get(key, [])[:n_frames]
            if came != [path.read_bytes() for path in files]:
                problems.append(f"{kind.name} is not the golden frame tests/golden/{name}.*.bin.")
        return problems


def _put(found: np.ndarray, covered: np.ndarray, plan: np.ndarray, payload: bytes) -> None:
    values = np.frombuffer(payload, found.dtype)
    kind, n_axes = int(plan[0]), int(plan[1])
    if tuple(plan[2 : 2 + n_axes]) != found.shape:
        return  # nothing is covered, which is told
    rest = plan[2 + n_axes :]
    if kind == 0:
        box = tuple(slice(s, s + e) for s, e in rest.reshape(2, n_axes).T)
        if found[box].size == values.size:
            found[box] = values.reshape(found[box].shape)
            covered[box] += 1
    elif len(rest) == len(values):
        found.reshape(-1)[rest] = values
        np.add.at(covered.reshape(-1), rest, 1)


def _address(socket: Router) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
