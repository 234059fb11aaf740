"""The connections to a shard's data socket: who greeted, who is gone, who is not read any more.

Owned by the intake; no sockets.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from penstock.wire import Header
from penstock_server.door import Refusal
from penstock_server.loans import Loan, accept
from penstock_server.plans import Plan
from penstock_server.streams import Stream

RESYNC_PAUSE_S = 1.0
LOOK_S = 1.0  # between two looks for memory and connections whose process is gone
CALL_S = 60.0  # between two answers to everyone: sending tells who is gone
GONE_S = 60.0  # until one that is gone is forgotten: what it sent before may still be on its way
MOST_PLANS = 8  # of a connection, the newest
MOST_KNOWN = 10_000  # connections that are dropped, or were asked to greet


@dataclass
class Peer:
    """One connection: a part of a worker, with the number of its next message."""

    identity: bytes
    part: int
    greeting: int
    expected: int = 0
    plans: dict[int, Plan | Refusal] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)  # lease -> granted, as last told
    simulations: set[int] = field(default_factory=set)  # that it opened, and perhaps has no more
    loan: Loan | None = None  # its memory, if it is on this host
    gone_s: float | None = None  # when sending to it said that nobody is there

    def learn(self, number: int, plan: Plan | Refusal) -> None:
        """Keeps a plan that was announced, or why it is none."""
        self.plans.pop(number, None)
        while len(self.plans) >= MOST_PLANS:
            del self.plans[next(iter(self.plans))]
        self.plans[number] = plan

    def news(self, streams: Collection[Stream]) -> list[tuple[int, int]]:
        """(lease, granted) of those of its streams whose grant it was not told; they are now."""
        fresh = [(s.lease, s.granted) for s in streams if self.told.get(s.lease) != s.granted]
        self.told.update(fresh)
        if len(self.told) > 2 * len(streams) + 16:  # of simulations that are over
            leases = {stream.lease for stream in streams}
            self.told = {lease: n for lease, n in self.told.items() if lease in leases}
        return fresh


class Peers:
    """By identity; `known` greeted and are not forgotten."""

    def __init__(self, streams: Mapping[int, Stream]) -> None:
        """streams: of the shard, by simulation."""
        self.known: dict[bytes, Peer] = {}
        self._streams = streams
        self._dropped: dict[bytes, None] = {}  # the oldest first, and so the next
        self._asked: dict[bytes, float] = {}  # when it was asked to greet
        self._looked_s = self._called_s = time.monotonic()

    def greet(self, identity: bytes, hello: Header, offer: bytes) -> None:
        """A HELLO, also of one that is known: it begins anew."""
        peer = Peer(identity, hello.part, hello.step, loan=accept(offer))
        if peer.loan is not None:
            # What came from this memory over an earlier connection is sent again over the new one.
            # Read late, its places would hold other steps by then.
            for other in list(self.known.values()):
                if other.loan is not None and other.loan.token == peer.loan.token:
                    self.forget(other)
        self.known[identity] = peer
        self._asked.pop(identity, None)

    def forget(self, peer: Peer) -> None:
        """It said goodbye, or what it still sends would be asked for again."""
        self.known.pop(peer.identity, None)
        for stream in self.streams_of(peer):
            stream.peers.discard(peer.identity)

    def streams_of(self, peer: Peer) -> list[Stream]:
        """What it opened and is still going on."""
        found = []
        for simulation in list(peer.simulations):
            stream = self._streams.get(simulation)
            if stream is not None and peer.identity in stream.peers:
                found.append(stream)
            else:
                peer.simulations.discard(simulation)
        return found

    def drop(self, identity: bytes) -> bool:
        """Reads nothing more of a connection; False if it is so already.

        libzmq cannot end a single connection of a socket. Whoever connects anew is heard again.
        """
        if identity in self._dropped:
            return False
        peer = self.known.get(identity)
        if peer is not None:
            self.forget(peer)
        _make_room(self._dropped)
        self._dropped[identity] = None
        return True

    def is_dropped(self, identity: bytes) -> bool:
        return identity in self._dropped

    def may_ask(self, identity: bytes, again: bool) -> bool:
        """Whether to ask it to greet: once a second; again: whatever was before."""
        now_s = time.monotonic()
        if not again and now_s - self._asked.get(identity, -1e9) < RESYNC_PAUSE_S:
            return False
        _make_room(self._asked)
        self._asked[identity] = now_s
        return True

    def is_gone(self, identity: bytes) -> None:
        """Nobody is there to be sent to. What it sent before may not have been read yet."""
        peer = self.known.get(identity)
        if peer is not None and peer.gone_s is None:
            peer.gone_s = time.monotonic()

    def look(self, busy: bool) -> Collection[bytes]:
        """For memory whose process is gone, and for connections that are: who is to be answered.

        busy: messages wait to be received.
        """
        now_s = time.monotonic()
        if now_s <= self._looked_s + LOOK_S:
            return ()
        self._looked_s = now_s
        for peer in list(self.known.values()):
            if peer.loan is not None:
                peer.loan.look(now_s, busy)
            if peer.gone_s is not None and now_s > peer.gone_s + GONE_S and not busy:
                self.forget(peer)
        if now_s <= self._called_s + CALL_S:
            return ()
        self._called_s = now_s
        return list(self.known)


def _make_room(known: dict[bytes, None] | dict[bytes, float]) -> None:
    if len(known) >= MOST_KNOWN:
        del known[next(iter(known))]
