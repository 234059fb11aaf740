"""The connection of a solver to a campaign, one object on every MPI rank; users begin here.

Its parts: the Source of simulations, the solver's Ranks, and a Sender for each shard, to which
every rank sends its part of the fields straight away, or rank 0 those of all (Gathering). Without a
server's address it runs alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import zmq

from penstock.arena import Arena, make_arena
from penstock.buffers import Buffers
from penstock.errors import LayoutError, PenstockError
from penstock.gathered import GatheredSimulation
from penstock.gathering import Gathering
from penstock.keys import ClientKeys
from penstock.layout import FieldSpec, Owned, Share, share, whole
from penstock.pages import Pages
from penstock.plans import Plans
from penstock.ranks import Ranks
from penstock.sender import Sender
from penstock.shipment import Shipment
from penstock.simulation import Assignment, Simulation
from penstock.source import PATIENCE_S, Alone, Coordinator, Source
from penstock.wire import Header, Kind

BUNCHES_IN_WINDOW = 16
ARENA_WINDOWS = 4  # so that steps larger than the window fit in as well; unused pages are not there


def connect(
    comm: Any = None,
    *,
    parameters: Mapping[str, float] | None = None,
    gather: str | None = None,
) -> Link:
    """Connects this MPI rank to the campaign that started the program.

    comm: an mpi4py communicator, or None for a serial program. parameters: what a stand-alone run
    (no PENSTOCK_COORDINATOR in the environment) simulates. gather: None, every rank sends its own
    part, or "root", rank 0 sends those of all, which is for many ranks with small fields. Raises
    ConnectionLost when the coordinator does not answer, KeyRefused when it does not let the program
    in, KeyFileError for PENSTOCK_KEYS, PenstockError for a parallel program without a communicator
    and for another `gather`.
    """
    if gather not in (None, "root"):
        raise PenstockError(
            f"penstock.connect() was given gather={gather!r}; there are None (every rank sends its "
            'own part) and "root" (rank 0 sends the parts of all ranks).'
        )
    return Link(comm, os.environ.get("PENSTOCK_COORDINATOR"), parameters, gather == "root")


class Link:
    """Hands out simulations and carries their steps; use it as a context manager."""

    def __init__(
        self,
        comm: Any,
        address: str | None,
        parameters: Mapping[str, float] | None = None,
        gathered: bool = False,
    ) -> None:
        self._ranks = Ranks(comm, self._flow, gathered and bool(address))
        self._gathering = Gathering(self._ranks, self) if self._ranks.gathered else None
        self.anywhere = self._ranks.anywhere
        self._keys = ClientKeys.from_environment() if address else None
        self._context = zmq.Context()
        self._alone = not address
        self._source: Source = (
            Coordinator(address, self._ranks, self._context, self._flow, self._keys)
            if address
            else Alone(parameters or {})
        )
        self._began_s = time.monotonic()
        self._closed = False
        self._current: Simulation | None = None
        self._senders: dict[str, Sender] = {}
        self._shares: dict[str, Share] = {}
        self._plans = Plans()
        self._arena: Arena | None = None
        self._shipments: dict[str, Shipment] = {}
        self._learned: set[str] = set()  # of "step" and "input", what has been sent
        try:
            if not self._alone:
                self._ranks.agree()
            body = self._source.hello()
        except BaseException:
            self._shut()  # an open socket would keep the program from ending
            raise
        stream = body["stream"]
        self._campaign = int(body["campaign"])
        self._book: Mapping[str, Any] = body["shards"]
        self._window_bytes = int(stream.get("window_bytes", 1 << 26))
        # Several of them must be under way to a shard, or it waits for the next one.
        most = self._window_bytes // BUNCHES_IN_WINDOW
        self.bunch_bytes = min(int(stream.get("bunch_bytes", 0)), most)
        lends = bool(stream.get("shared_memory", False)) and self._ranks.sends
        self._arena = make_arena(ARENA_WINDOWS * self._window_bytes) if lends else None
        lent = () if self._arena is None else (self._arena,)
        self.buffers = Buffers(*lent, Pages())
        self._undeclared = bool(stream.get("undeclared", False))  # no campaign file names fields
        self.specs: Mapping[str, FieldSpec] = {
            name: FieldSpec.from_dict(name, index, spec)
            for index, (name, spec) in enumerate(body["fields"].items())
        }
        self.segment_steps = int(stream.get("segment_steps", 1))
        self.every = max([1, *(spec.every for spec in self.specs.values())])

    # -- what a solver calls ---------------------------------------------------------------------

    def layout(self, field: str, *, global_shape: tuple[int, ...], owned: Owned) -> None:
        """Says which part of a field this rank owns; before or between simulations.

        owned: one slice an axis, or flat indices (int64) into the global field in C order. Raises
        LayoutError when the shape is not the campaign's, and once something of a simulation has
        been sent, until its end.
        """
        if self._undeclared and field not in self.specs:  # its role shows when it is sent
            self._declare(self._unknown(field, tuple(int(n) for n in global_shape), role=""))
        spec = self.specs.get(field)
        if spec is None:
            known = ", ".join(self.specs) or "none"
            raise LayoutError(f"The campaign declares no field {field!r}; it has {known}.")
        if tuple(global_shape) != spec.shape:
            raise LayoutError(
                f"The layout of {field!r} has the global shape {tuple(global_shape)}; the campaign "
                f"declares {spec.shape}. Correct [fields.{field}] or the solver's size."
            )
        running = self._current
        if running is not None and running.outcome is None:
            if running.opened and not self._undeclared:
                raise LayoutError(
                    f"The layout of {field!r} cannot change during simulation {running.id}: call "
                    "link.layout between simulations."
                )
            running.lay_out_anew()
        before, self._shares[field] = self._shares.get(field), share(spec, owned)
        if before is not None and before.sent_shape != self._shares[field].sent_shape:
            self.buffers.forget()  # else a program that changes it again and again would only grow
        self._forget_layout()

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
        body = self._source.next()
        if body is None:
            return None
        assignment = Assignment.from_dict(body)
        if self._gathering is None:
            self._current = Simulation(assignment, self)
        else:
            self._current = GatheredSimulation(assignment, self, self._ranks, self._gathering)
        return self._current

    def close(self) -> None:
        """Ends the running simulation, waits for acknowledgements, says goodbye; repeatable."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_current()
            for sender in self._senders.values():
                sender.drain()
            self._source.leave()
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

    def shipment(self, fields: Mapping[str, Any], when: str) -> Shipment:
        """How this rank ships the fields of a step or the inputs; when: "step" or "input"."""
        if self._undeclared:
            self.learn(fields, when)
        if when not in self._shipments:
            self._shipments[when] = Shipment(when, self.fields_of(when), self.shares())
        return self._shipments[when]

    def fields_of(self, when: str) -> list[FieldSpec]:
        """The fields of a step, or the input fields, in the campaign's order."""
        return [s for s in self.specs.values() if (s.role == "input") == (when == "input")]

    def step_shipment(self) -> Shipment | None:
        """How it ships the fields of a step; None while nobody has said which there are."""
        if self._undeclared and "step" not in self._learned:
            return None
        return self.shipment({}, "step")

    def shares(self) -> Mapping[str, Share]:
        """This rank's share of each field; a lone rank owns fields whole without saying so."""
        for spec in self.specs.values():
            if spec.name not in self._shares:
                if self._ranks.size > 1:
                    raise LayoutError(
                        f"Field {spec.name!r} has no layout and the program runs on "
                        f"{self._ranks.size} ranks. Call link.layout({spec.name!r}, ...) on every "
                        "rank first."
                    )
                self._shares[spec.name] = whole(spec)
        return self._shares

    def learn(self, fields: Mapping[str, Any], when: str) -> None:
        """Without a campaign file the first step declares its fields, and so do the first inputs.

        when: "step" or "input". Raises LayoutError for a field that came only later.
        """
        role = "input" if when == "input" else "state"
        for name, values in fields.items():
            spec = self.specs.get(name)
            if spec is None and when in self._learned:
                raise LayoutError(
                    f"The {when} field {name!r} did not come the first time. Send every field from "
                    "the first step on, and the input fields of every simulation."
                )
            if spec is None:
                self._declare(self._unknown(name, np.shape(values), role))
            elif not spec.role:
                self._declare(replace(spec, role=role))
        self._learned.add(when)

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
                    self._keys,
                    self._arena,
                )
        return [self._senders[shard] for shard in shards]

    def tell_plan(self, senders: list[Sender]) -> None:
        """Announces the layout of all fields where it is not known yet."""
        if not self._plans.up_to_date:
            shares = self.shares() if self._gathering is None else self._gathering.shares
            self._plans.renew(self._identity(), self.specs.values(), shares)
            if self._current is None or not self._current.opened:
                self._plans.withdraw()
            if self._undeclared:
                self._source.declare({s.name: _declaration(s) for s in self.specs.values()})
        self._plans.tell(senders)

    def forget_plan(self) -> None:
        """The layout is another one than the shards know."""
        self._plans.forget()

    def header(self, kind: Kind, assignment: Assignment) -> Header:
        """A header with what all messages of this simulation and rank have in common."""
        return Header(
            kind,
            self._campaign,
            assignment.simulation,
            assignment.lease,
            part=self._ranks.part,
            n_parts=self._ranks.n_parts,
            plan=self._plans.number,
        )

    def finished(self, simulation: Simulation) -> None:
        """Notes the outcome, to be told with the next request."""
        if self._alone and self._ranks.rank == 0:
            sent = [s for s in self.specs.values() if s.role != "input"]
            shapes = ", ".join(f"{s.name} {s.shape}" for s in sent) or "no field"
            print(
                f"penstock: no server, so {simulation.steps} steps of {shapes} were checked and "
                f"dropped ({time.monotonic() - self._began_s:.1f} s).",
                file=sys.stderr,
            )
        self._source.note(
            {
                "simulation": simulation.id,
                "lease": simulation.lease,
                "outcome": simulation.outcome,
                "steps": simulation.steps,
                "reason": simulation.reason,
                "time_s": simulation.time_s,
            }
        )

    # -- ends ------------------------------------------------------------------------------------

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.end()
            self._current.release()
            self._plans.withdraw()
            self._ranks.forget()
            self._current = None

    def _abandon(self, error: BaseException) -> None:
        """An exception is on its way out: name it to the coordinator and end every rank."""
        reason = f"{type(error).__name__}: {error}"
        try:
            if self._current is not None:
                self._current.abandon(reason)
            self._source.fail()
        except Exception as problem:  # the first error is the one to be seen
            print(f"penstock: the failure could not be reported: {problem}", flush=True)
        finally:
            self._closed = True
            self._shut()
        # Ranks that send their own parts may go on for a while without this one.
        if isinstance(error, Exception) or (self._ranks.gathered and _is_failure(error)):
            self._ranks.abort(error)

    def _shut(self) -> None:
        for sender in self._senders.values():
            sender.close()
        self._source.close()
        self._context.term()
        if self._arena is not None:
            self._arena.close()

    # -- what the shards are told ----------------------------------------------------------------

    def _flow(self) -> None:
        for sender in self._senders.values():
            sender.flow()

    def _declare(self, spec: FieldSpec) -> None:
        if self._current is not None:  # what is kept back leaves with the fields that it has
            self._current.lay_out_anew()
        self.specs = {**self.specs, spec.name: spec}
        self._forget_layout()

    def _forget_layout(self) -> None:
        self._shipments.clear()
        if self._gathering is None:
            self.forget_plan()
        else:
            self._gathering.forget()

    def _unknown(self, field: str, shape: tuple[int, ...], role: str) -> FieldSpec:
        return FieldSpec(field, len(self.specs), shape, np.dtype("float64"), role)

    def _identity(self) -> Header:
        ranks = self._ranks
        return Header(Kind.HELLO, self._campaign, part=ranks.part, n_parts=ranks.n_parts)


def _is_failure(error: BaseException) -> bool:
    """Whether a rank that exits by it has not come to its regular end."""
    return not (isinstance(error, SystemExit) and error.code in (None, 0))


def _declaration(spec: FieldSpec) -> dict[str, Any]:
    """A learned field for the request `fields`; one that was laid out and not sent is a state."""
    return {
        "shape": spec.shape,
        "dtype": spec.dtype.name,
        "index": spec.index,
        "role": spec.role or "state",
    }
