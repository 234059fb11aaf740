"""The data socket of a receiver: messages in; acknowledgements, credit and refusals out."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import zmq

from penstock import wire
from penstock.wire import Header, Kind, WireError
from penstock_server.curve import Guard
from penstock_server.door import Refusal, copy_finite, read_plan
from penstock_server.loans import LoanError, LoanOver
from penstock_server.peers import Peer, Peers
from penstock_server.plans import Plan
from penstock_server.refusals import KNOWN
from penstock_server.shard import Shard

Payload = bytes | memoryview

BURST = 64  # messages before the other sockets get a turn
BURST_BYTES = 1 << 24  # and so often producers hear of room, while more of them is on its way
ZERO_COPY_BYTES = 1 << 14  # below this a copy is cheaper than pyzmq's bookkeeping
UNNUMBERED = (Kind.HELLO, Kind.PROBE, Kind.BYE)
MOST_REFUSALS = 10_000  # that wait for the coordinator
SAY_S = 30.0  # between two lines of the log
_AT_ONCE = int(zmq.NOBLOCK)  # a flag that is an enum costs more to combine than a frame to send
_MORE = int(zmq.SNDMORE) | _AT_ONCE


class Intake:
    """Owns the ROUTER socket of the shard."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        shard: Shard,
        campaign: int,
        address: str,
        guard: Guard,
        most_waiting: int = 0,
    ) -> None:
        """most_waiting: messages of a connection that ZeroMQ keeps; 0: as many as come."""
        self.shard = shard
        self.refusals: list[dict[str, Any]] = []
        self.counters: Counter[str] = Counter()
        self._campaign = campaign
        self._peers = Peers(shard.streams)
        self._known = self._peers.known
        self._say_at_s = 0.0
        self._plans: WeakValueDictionary[bytes, Plan] = WeakValueDictionary()  # equal ones once
        self._dirty: set[bytes] = set()
        self._shapes = {n: s for n, (s, _) in {**shard.spec.fields, **shard.spec.inputs}.items()}
        largest = max(a.itemsize * a[0, 0].size for a in shard.slab.fields.values())
        inputs = [a.itemsize * a[0].size for a in shard.slab.inputs.values()]
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.setsockopt(zmq.RCVHWM, most_waiting)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # says who is gone
        self.socket.setsockopt(zmq.BACKLOG, 4096)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20000)
        # Of a frame, sent or lent: 8 of what is largest, and every bunch that may be configured.
        self._most_bytes = 8 * max([largest, *inputs, 1 << 19]) + 4096
        self.socket.setsockopt(zmq.MAXMSGSIZE, self._most_bytes)
        guard.protect(self.socket)
        self.socket.bind(address)
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def turn(self) -> None:
        """Takes a burst of messages, then tells everyone concerned what changed.

        One answer to a burst: what it costs to wake ZeroMQ's thread is more than a small part.
        """
        n_bytes, busy = 0, True
        for _ in range(BURST):
            try:
                identity = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                busy = False
                break
            n_bytes += self._take(identity)
            if n_bytes > BURST_BYTES:
                break
        self._dirty.update(self._peers.look(busy))
        for stream in self.shard.credit.grant():
            self._dirty.update(stream.peers)
        for stream, why in self.shard.take_dismissed():
            self._say_refused(stream.peers, stream.simulation, stream.lease, why)
        for identity in list(self._dirty):
            self._acknowledge(identity)
        self._dirty.clear()

    def close(self) -> None:
        self.socket.close()

    # -- one message -----------------------------------------------------------------------------

    def _take(self, identity: bytes) -> int:
        """One message, whose identity has been read; a ROUTER hands out none without a frame."""
        try:
            header = wire.decode(self.socket.recv())
        except WireError as error:
            self._discard()
            self._drop(identity, str(error))
            return 0
        if header.campaign != self._campaign:
            self.counters["foreign"] += 1
            self._discard()
            return 0
        peer = self._known.get(identity)
        if peer is None or header.sequence != peer.expected or header.kind in UNNUMBERED:
            more = self._rest()
            self._take_aside(header, peer, identity, more)
            return 0
        n_bytes = self._dispatch(header, peer)
        peer.expected += 1
        self._dirty.add(identity)
        return n_bytes

    def _take_aside(self, header: Header, peer: Peer | None, identity: bytes, offer: bytes) -> None:
        """Whatever is not the next message of a known peer."""
        if self._peers.is_dropped(identity):
            self.counters["malformed"] += 1
        elif header.kind == Kind.HELLO:
            self._peers.greet(identity, header, offer)
            self._dirty.add(identity)
        elif header.kind == Kind.BYE:
            if peer is not None:
                self._peers.forget(peer)
        elif peer is None or header.sequence > peer.expected:
            self._resync(identity, again=header.kind == Kind.PROBE)
        elif header.kind == Kind.PROBE:
            peer.told.clear()
            self._dirty.add(identity)
        else:
            self.counters["repeated_messages"] += 1
            self._dirty.add(identity)

    def _dispatch(self, header: Header, peer: Peer) -> int:
        strange = self._what_is_strange(header, peer)
        if strange:
            self._discard()
            self._refuse_stranger(header, peer, strange)
            return 0
        try:
            if header.kind == Kind.PART:
                return self._take_part(header, peer)
            if header.kind == Kind.BUNCH:
                return self._take_bunch(header, peer)
            payloads = self._payloads()
            if header.kind == Kind.PLAN:
                self._read_plan(header, peer, payloads)
            elif header.kind == Kind.OPEN:
                self._open(header, peer, payloads)
            elif header.kind == Kind.INPUT:
                copied = [bytes(values) for values in self._values(header, peer, payloads)]
                self._check_sizes(header, copied)
                self.shard.receive_inputs(header, copied)
            elif header.kind == Kind.END:
                self.shard.end(self.shard.find(header), header.part, header.step)
            elif header.kind == Kind.FAIL:
                self.shard.retire(self.shard.find(header).simulation)
            else:
                self._drop(peer.identity, f"A {header.kind.name} came; only shards send it.")
            return sum(map(len, payloads))
        except Refusal as refusal:
            self._discard()
            self._refuse(header, peer, refusal)
            return 0

    def _what_is_strange(self, header: Header, peer: Peer) -> str:
        """Says that it speaks for another part, or of a lease that another connection opened.

        It harms its sender alone: what it names may be somebody else's running simulation.
        """
        if header.part != peer.part:
            return f"Part {header.part} was named by a connection that greeted as {peer.part}."
        stream = self.shard.streams.get(header.simulation)
        if (
            header.kind in (Kind.OPEN, Kind.PLAN)
            or stream is None
            or stream.lease != header.lease  # which `Shard.find` refuses
            or stream.refused is not None  # which they are to hear
            or peer.identity in stream.peers
        ):
            return ""
        return f"This connection did not open part {header.part} of lease {header.lease}."

    def _take_part(self, header: Header, peer: Peer) -> int:
        reception = self.shard.receive(header)
        n_bytes, all_finite = 0, True
        for entry, array in zip(header.fields, reception.arrays):
            if not self.socket.getsockopt(zmq.RCVMORE):
                raise Refusal("shape", f"A message of {len(header.fields)} fields was truncated.")
            if entry.flags & wire.LENT:
                values: Payload = self._lent(peer, self.socket.recv(), entry.n_bytes)
            elif entry.n_bytes < ZERO_COPY_BYTES:
                values = self.socket.recv()
            else:
                values = self.socket.recv(copy=False).buffer
            n_bytes += len(values)
            if len(values) != entry.n_bytes:
                raise Refusal("shape", f"A field of {entry.n_bytes} bytes came with {len(values)}.")
            if not len(array):
                continue
            given = np.frombuffer(values, array.dtype)
            if not copy_finite(array, given):
                array[:] = given
                all_finite = False
        reception.finite = all_finite
        if self.socket.getsockopt(zmq.RCVMORE):
            raise Refusal("shape", "A message has more frames than its header names.")
        self.counters["bytes"] += n_bytes
        self.shard.receive_done(reception)
        return n_bytes

    def _take_bunch(self, header: Header, peer: Peer) -> int:
        """Several steps in one message, taken in at once or, if that cannot be, one by one."""
        numbers, *frames = self._payloads(copied=False) or [b""]
        blocks = self._values(header, peer, frames, header.step)
        try:
            steps = wire.steps_of(header, numbers, blocks)
        except WireError as error:
            raise Refusal("shape", str(error)) from error
        if not self.shard.receive_bunch(header, steps, blocks):
            for part, values in wire.parts_of(header, [numbers, *blocks]):
                try:
                    self._take_values(part, values)
                except Refusal as refusal:
                    self._refuse(part, peer, refusal)
                    break
        n_bytes = sum(map(len, blocks))
        self.counters["bytes"] += n_bytes
        return n_bytes

    def _take_values(self, header: Header, values: list[memoryview]) -> None:
        reception = self.shard.receive(header)
        for array, payload in zip(reception.arrays, values):
            array[:] = np.frombuffer(payload, array.dtype)
        self.shard.receive_done(reception)

    def _read_plan(self, header: Header, peer: Peer, payloads: list[bytes]) -> None:
        """A plan that does not fit is told with the simulation that names it."""
        try:
            self._check_sizes(header, payloads)
            plan = read_plan(self.shard.names, self._shapes, header, payloads)
            peer.learn(header.plan, self._plans.setdefault(plan.digest, plan))
        except Refusal as refusal:
            peer.learn(header.plan, refusal)

    def _open(self, header: Header, peer: Peer, payloads: list[bytes]) -> None:
        plan = peer.plans.get(header.plan)
        if plan is None:
            raise Refusal("layout", f"A simulation names plan {header.plan}, which did not come.")
        if isinstance(plan, Refusal):
            raise Refusal(plan.kind, plan.reason, plan.field)
        stream = self.shard.open(header, b"".join(payloads), peer.identity, plan)
        peer.simulations.add(stream.simulation)

    def _payloads(self, copied: bool = True) -> list[Any]:
        """The frames after the header, as bytes or as they lie in ZeroMQ's memory."""
        payloads: list[Any] = []
        while self.socket.getsockopt(zmq.RCVMORE):
            if len(payloads) > wire.MAX_FIELDS:
                raise Refusal("shape", f"A message has more than {wire.MAX_FIELDS} fields.")
            payloads.append(self.socket.recv() if copied else self.socket.recv(copy=False).buffer)
        return payloads

    def _values(
        self, header: Header, peer: Peer, frames: Sequence[Payload], steps: int = 1
    ) -> list[Payload]:
        """The frames of all rows; of those that are lent what they point to, of so many steps."""
        if len(frames) != len(header.fields):
            raise Refusal("shape", f"A message of {len(header.fields)} fields has {len(frames)}.")
        return [
            self._lent(peer, frame, steps * entry.n_bytes) if entry.flags & wire.LENT else frame
            for entry, frame in zip(header.fields, frames)
        ]

    def _lent(self, peer: Peer, place: Payload, n_bytes: int) -> memoryview:
        if peer.loan is None:
            raise Refusal("shape", "A message names a place in memory that was not lent.")
        if n_bytes > self._most_bytes:
            raise Refusal("shape", f"A field of {n_bytes} bytes came; {self._most_bytes} are read.")
        try:
            found = peer.loan.view(place, n_bytes)
        except LoanOver as error:
            raise Refusal("superseded", str(error)) from error
        except LoanError as error:
            raise Refusal("shape", str(error)) from error
        self.counters["lent_bytes"] += n_bytes
        return found

    def _discard(self) -> None:
        while self.socket.getsockopt(zmq.RCVMORE):
            self.socket.recv()

    def _rest(self) -> bytes:
        """The next frame, if there is one; those after it are thrown away."""
        found = self.socket.recv() if self.socket.getsockopt(zmq.RCVMORE) else b""
        self._discard()
        return found

    def _check_sizes(self, header: Header, payloads: list[bytes]) -> None:
        if [e.n_bytes for e in header.fields] != [len(p) for p in payloads]:
            raise Refusal("shape", "The frames of a message are not as long as its header says.")

    # -- answers ---------------------------------------------------------------------------------

    def _acknowledge(self, identity: bytes) -> None:
        peer = self._known.get(identity)
        if peer is None or peer.gone_s is not None:
            return
        grants = peer.news(self._peers.streams_of(peer))
        flags = wire.HOLD if self.shard.credit.blocked else 0
        flags |= wire.BORROWS if peer.loan is not None else 0
        header = Header(
            Kind.ACK, self._campaign, step=peer.greeting, flags=flags, sequence=peer.expected
        )
        frames = [identity, bytes(wire.encode(header))]
        if grants:
            frames.append(wire.encode_grants(grants))
        self._send(frames)

    def _resync(self, identity: bytes, again: bool) -> None:
        if not self._peers.may_ask(identity, again):
            return
        self.counters["resyncs"] += 1
        self._send([identity, bytes(wire.encode(Header(Kind.RESYNC, self._campaign)))])

    def _refuse(self, header: Header, peer: Peer, refusal: Refusal) -> None:
        stream = self.shard.streams.get(header.simulation)
        if (
            stream is not None
            and stream.lease == header.lease
            and stream.covered
            and stream.refused is None
            and peer.identity not in stream.peers
        ):
            self._refuse_stranger(header, peer, refusal.reason)
            return
        if refusal.kind not in KNOWN:
            self.counters["refused_messages"] += 1
            self._note_refusal(
                {
                    "simulation": header.simulation, "lease": header.lease, "kind": refusal.kind,
                    "reason": refusal.reason, "field": refusal.field, "step": header.step,
                }
            )  # fmt: skip
            if stream is not None and stream.lease == header.lease:
                self.shard.refuse(stream, refusal)
        peers = {peer.identity}
        if stream is not None and stream.lease == header.lease:
            peers |= stream.peers
        self._say_refused(peers, header.simulation, header.lease, refusal.reason)

    def _refuse_stranger(self, header: Header, peer: Peer, why: str) -> None:
        self.counters["strange_messages"] += 1
        self._say_refused([peer.identity], header.simulation, header.lease, why)

    def _note_refusal(self, entry: dict[str, Any]) -> None:
        if len(self.refusals) < MOST_REFUSALS:
            self.refusals.append(entry)

    def _say_refused(self, peers: Iterable[bytes], simulation: int, lease: int, why: str) -> None:
        answer = bytes(wire.encode(Header(Kind.REFUSED, self._campaign, simulation, lease)))
        for identity in peers:
            self._send([identity, answer, why.encode()])

    def _send(self, frames: list[bytes]) -> None:
        try:
            for frame in frames[:-1]:
                self.socket.send(frame, _MORE)
            self.socket.send(frames[-1], _AT_ONCE)
        except zmq.ZMQError as error:
            self.counters["unsendable"] += 1
            if error.errno == zmq.EHOSTUNREACH:
                self._peers.is_gone(frames[0])

    def _drop(self, identity: bytes, why: str) -> None:
        """Reads nothing more of a connection that sends what is no message of a client."""
        self.counters["malformed"] += 1
        if not self._peers.drop(identity):
            return
        self.counters["dropped_connections"] += 1
        if time.monotonic() >= self._say_at_s:
            self._say_at_s = time.monotonic() + SAY_S
            print(
                f"A connection to {self.address} is not read any more: {why} Connections dropped "
                f"so far: {self.counters['dropped_connections']}.",
                file=sys.stderr,
                flush=True,
            )
