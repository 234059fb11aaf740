"""The connection of a solver to a campaign, one object on every MPI rank; users begin here.

Rank 0 asks the coordinator for simulations and shares the answers over MPI; fields go from every
rank straight to the shards. Without a server's address the program runs alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

import numpy as np
import zmq

from penstock.control import Asker
from penstock.errors import ConnectionLost, LayoutError, PenstockError
from penstock.layout import FieldSpec, Owned, Share, share, whole
from penstock.sender import Sender
from penstock.simulation import Assignment, Simulation
from penstock.wire import FieldEntry, Header, Kind, dtype_code

PATIENCE_S = 120.0


def connect(comm: Any = None, *, parameters: Mapping[str, float] | None = None) -> Link:
    """Connects this MPI rank to the campaign that started the program.

    comm: an mpi4py communicator, or None for a serial program. parameters: what a stand-alone run
    (no PENSTOCK_COORDINATOR in the environment) simulates. Raises ConnectionLost when the
    coordinator does not answer, PenstockError for a parallel program without a communicator.
    """
    return Link(comm, os.environ.get("PENSTOCK_COORDINATOR"), parameters)


class Link:
    """Hands out simulations and carries their steps; use it as a context manager."""

    def __init__(
        self, comm: Any, address: str | None, parameters: Mapping[str, float] | None = None
    ) -> None:
        self._comm = comm
        self._rank = 0 if comm is None else int(comm.Get_rank())
        self._size = 1 if comm is None else int(comm.Get_size())
        _refuse_hidden_ranks(comm)
        self._standalone = dict(parameters or {}) if not address else None
        self._closed = False
        self._began_s = time.monotonic()
        self._current: Simulation | None = None
        self._previous: dict[str, Any] | None = None
        self._sequence = 0
        self._senders: dict[str, Sender] = {}
        self._shares: dict[str, Share] = {}
        self._plan = 0
        self._plan_payload: tuple[Header, list[np.ndarray]] | None = None
        self._planned: set[str] = set()  # shards that know the present plan
        self._undeclared = False  # no campaign file names the fields: `penstock try`
        self.specs: Mapping[str, FieldSpec] = {}
        self.segment_steps = 1
        self.every = 1
        if address:
            self._worker = os.environ.get(
                "PENSTOCK_WORKER", f"{socket.gethostname()}-{os.getpid()}"
            )
            self._context = zmq.Context()
            self._asker = Asker(address, f"worker/{self._worker}", context=self._context)
            self._welcome(self._collective(self._ask_hello))

    # -- what a solver calls ---------------------------------------------------------------------

    def layout(self, field: str, *, global_shape: tuple[int, ...], owned: Owned) -> None:
        """Says which part of a field this rank owns; before the first simulation.

        owned: one slice an axis, or flat indices (int64) into the global field in C order.
        Raises LayoutError when the shape is not the campaign's.
        """
        self.learn(field, tuple(int(n) for n in global_shape))
        spec = self.specs.get(field)
        if spec is None:
            known = ", ".join(self.specs) or "none"
            raise LayoutError(f"The campaign declares no field {field!r}; it has {known}.")
        if tuple(global_shape) != spec.shape:
            raise LayoutError(
                f"The layout of {field!r} has the global shape {tuple(global_shape)}; the campaign "
                f"declares {spec.shape}. Correct [fields.{field}] or the solver's size."
            )
        self._shares[field] = share(spec, owned)
        self._plan_payload = None

    def simulations(self) -> Iterator[Simulation]:
        """Yields simulations until there are no more; the loop body runs one each."""
        while True:
            sim = self.simulation()
            if sim is None:
                return
            yield sim
            sim.end()

    def simulation(self) -> Simulation | None:
        """The next simulation, or None; ends the one before. For programs that run one and exit."""
        self._end_current()
        body = self._next_standalone() if self._standalone is not None else self._next()
        if body is None:
            return None
        assignment = Assignment.from_dict(body)
        self._current = Simulation(assignment, self, self._standalone is not None)
        return self._current

    def close(self) -> None:
        """Ends the running simulation, waits for acknowledgements, says goodbye; repeatable."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._current is not None:
                self._current.end()
                self._leave_current()
            for sender in self._senders.values():
                sender.drain()
            if self._standalone is None and self._rank == 0:
                self._sequence += 1
                self._ask("next", sequence=self._sequence, previous=self._previous, leaving=True)
        finally:
            self._shut()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        else:
            self._abandon(error)

    # -- what a simulation needs of its link -----------------------------------------------------

    def shares(self) -> Mapping[str, Share]:
        """This rank's share of each field; a lone rank owns fields whole without saying so."""
        for spec in self.specs.values():
            if spec.name not in self._shares:
                if self._size > 1:
                    raise LayoutError(
                        f"Field {spec.name!r} has no layout and the program runs on {self._size} "
                        f"ranks. Call link.layout({spec.name!r}, ...) on every rank first."
                    )
                self._shares[spec.name] = whole(spec)
        return self._shares

    def learn(self, field: str, shape: tuple[int, ...]) -> None:
        """Without a campaign file a field is declared by sending it."""
        if (self._standalone is not None or self._undeclared) and field not in self.specs:
            spec = FieldSpec(field, len(self.specs), shape, np.dtype("float64"))
            self.specs = {**self.specs, field: spec}
            self._plan_payload = None

    def senders(self, shards: tuple[str, ...]) -> list[Sender]:
        """The connections to the shards; made on first use."""
        for shard in shards:
            if shard not in self._senders:
                self._senders[shard] = Sender(
                    self._context,
                    shard,
                    self._book[shard]["address"],
                    self._identity(),
                    max(1, self._window_bytes // max(1, len(shards))),
                    PATIENCE_S,
                )
        return [self._senders[shard] for shard in shards]

    def tell_plan(self, senders: list[Sender]) -> None:
        """Announces this rank's layout of all fields where it is not known yet."""
        if self._plan_payload is None:
            self._plan += 1
            self._plan_payload = self._encode_plan()
            self._planned.clear()
            if self._undeclared and self._rank == 0:
                fields = {
                    spec.name: {"shape": spec.shape, "dtype": spec.dtype.name, "index": spec.index}
                    for spec in self.specs.values()
                }
                self._ask("fields", fields=fields)
        for sender in senders:
            if sender.shard not in self._planned:
                self._planned.add(sender.shard)
                sender.announce(("plan", self._plan), *self._plan_payload)

    def header(self, kind: Kind, assignment: Assignment) -> Header:
        """A header with what all messages of this simulation and rank have in common."""
        return Header(
            kind,
            self._campaign,
            assignment.simulation,
            assignment.lease,
            part=self._rank,
            n_parts=self._size,
            plan=self._plan,
        )

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; collective."""
        if self._size == 1:
            return flag
        mine, total = np.array([int(flag)], dtype="i8"), np.zeros(1, dtype="i8")
        self._patiently(self._comm.Iallreduce(mine, total))
        return bool(total[0])

    def finished(self, simulation: Simulation) -> None:
        """Notes the outcome, to be told with the next request."""
        if self._standalone is not None and self._rank == 0:
            shapes = ", ".join(f"{s.name} {s.shape}" for s in self.specs.values()) or "no field"
            print(
                f"penstock: no server, so {simulation.steps} steps of {shapes} were checked and "
                f"dropped ({time.monotonic() - self._began_s:.1f} s).",
                file=sys.stderr,
            )
        self._previous = {
            "simulation": simulation.id,
            "lease": simulation.lease,
            "outcome": simulation.outcome,
            "steps": simulation.steps,
            "reason": simulation.reason,
        }

    # -- the control path ------------------------------------------------------------------------

    def _ask(self, kind: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._asker.ask(
            kind, timeout_s=PATIENCE_S, worker=self._worker, **body
        )
        if answer["kind"] == "refused":
            raise PenstockError(f"The coordinator refused {kind!r}: {answer.get('why')}")
        return answer

    def _ask_until(self, kind: str, **body: Any) -> dict[str, Any]:
        """Repeats a request for as long as the answer is `wait`."""
        while True:
            answer = self._ask(kind, **body)
            if answer["kind"] != "wait":
                return answer
            until = time.monotonic() + float(answer.get("retry_s", 0.2))
            while time.monotonic() < until:
                for sender in self._senders.values():
                    sender.flow()
                time.sleep(0.02)

    def _ask_hello(self) -> dict[str, Any]:
        return self._ask_until(
            "hello",
            agent=os.environ.get("PENSTOCK_AGENT"),
            pid=os.getpid(),
            host=socket.gethostname(),
            parts=self._size,
            client="python",
        )

    def _welcome(self, body: Mapping[str, Any]) -> None:
        self._campaign = int(body["campaign"])
        self._book: Mapping[str, Any] = body["shards"]
        self.specs = {
            name: FieldSpec.from_dict(name, index, spec)
            for index, (name, spec) in enumerate(body["fields"].items())
        }
        stream = body["stream"]
        self._undeclared = bool(stream.get("undeclared", False))
        self.segment_steps = int(stream.get("segment_steps", 1))
        self.every = max([1, *(spec.every for spec in self.specs.values())])
        self._window_bytes = int(stream.get("window_bytes", 1 << 26))

    def _next(self) -> dict[str, Any] | None:
        self._sequence += 1
        body = self._collective(
            lambda: self._ask_until("next", sequence=self._sequence, previous=self._previous)
        )
        self._previous = None
        return body if body["kind"] == "assignment" else None

    def _next_standalone(self) -> dict[str, Any] | None:
        if self._sequence:
            return None
        self._sequence = 1
        return {
            "simulation": 0, "lease": 1, "role": "train", "attempt": 1, "seed": 0,
            "parameters": self._standalone, "shards": (),
        }  # fmt: skip

    def _collective(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Rank 0 asks, all ranks get the answer (or the same error); no rank spins meanwhile."""
        if self._size == 1:
            return ask()
        error = ""
        data = b""
        if self._rank == 0:
            try:
                data = json.dumps(ask()).encode()
            except PenstockError as problem:
                error = str(problem)
                data = json.dumps({"kind": "error", "why": error}).encode()
        length = np.array([len(data)], dtype="i8")
        self._patiently(self._comm.Ibcast(length, root=0))
        body = np.frombuffer(data, dtype="u1").copy() if data else np.zeros(int(length[0]), "u1")
        self._patiently(self._comm.Ibcast(body, root=0))
        answer: dict[str, Any] = json.loads(body.tobytes())
        if answer["kind"] == "error":
            raise ConnectionLost(answer["why"])
        return answer

    def _patiently(self, request: Any) -> None:
        pause_s = 1e-4
        while not request.Test():
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, 0.01)

    # -- ends ------------------------------------------------------------------------------------

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.end()
            self._leave_current()

    def _leave_current(self) -> None:
        if self._current is not None:
            self._current.release()
            self._current = None

    def _abandon(self, error: BaseException) -> None:
        """An exception is on its way out: name it to the coordinator and end every rank."""
        reason = f"{type(error).__name__}: {error}"
        try:
            if self._current is not None:
                self._current.fail(reason)
            if self._standalone is None and self._previous is not None:
                self._asker.ask("fail", timeout_s=5.0, worker=self._worker, **self._previous)
        except Exception as problem:  # the first error is the one to be seen
            print(f"penstock: the failure could not be reported: {problem}", flush=True)
        finally:
            self._closed = True
            self._shut()
        if self._size > 1 and isinstance(error, Exception):
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__)
            self._comm.Abort(1)  # the other ranks wait in collectives that will never be called

    def _shut(self) -> None:
        for sender in self._senders.values():
            sender.close()
        if self._standalone is None:
            self._asker.close()
            self._context.term()

    def _identity(self) -> Header:
        return Header(Kind.HELLO, self._campaign, part=self._rank, n_parts=self._size)

    def _encode_plan(self) -> tuple[Header, list[np.ndarray]]:
        shares = self.shares()
        specs = list(self.specs.values())
        payloads = [shares[spec.name].plan for spec in specs]
        entries = tuple(
            FieldEntry(s.index, dtype_code(p.dtype), p.nbytes) for s, p in zip(specs, payloads)
        )
        base = self._identity()
        header = Header(
            Kind.PLAN, base.campaign, part=base.part, n_parts=base.n_parts, plan=self._plan,
            fields=entries,
        )  # fmt: skip
        return header, payloads


def _refuse_hidden_ranks(comm: Any) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        size = os.environ.get(name, "1")
        if comm is None and size.isdigit() and int(size) > 1:
            raise PenstockError(
                f"This program was started on {size} MPI ranks, and penstock.connect() was given "
                "no communicator. Call penstock.connect(MPI.COMM_WORLD)."
            )
