"""The counting server of `penstock try`: speaks the wire like a campaign, and counts.

A worker gets a welcome, simulations and endless credit; what it sends is looked at and dropped.
The Desk answers the control path and the Counts take the data path; the CountingServer puts them on
two ROUTERs in the thread of its caller, `try_solver.run`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import zmq

from penstock import control, wire
from penstock.wire import Header, Kind, WireError
from penstock_server.config import Campaign
from penstock_server.try_counts import Counts
from penstock_server.try_desk import SHARD, Desk

CAMPAIGN = 0x7472795F70656E73  # "try_pens"
ENDLESS = 0xFFFFFFFF  # segments of credit
LARGEST_MESSAGE = 4 << 30
RESYNC_PAUSE_S = 1.0


@dataclass
class _Peer:
    """One connection: a rank of the program, with the number of its next message."""

    part: int
    greeting: int
    expected: int = 0
    leases: set[int] = field(default_factory=set)


class CountingServer:
    """Two ROUTERs on the loopback interface; call `turn` in a loop, then `close`.

    `busy_s` is the time spent on messages; the program may have waited so long at most.
    """

    def __init__(self, counts: Counts) -> None:
        self.busy_s = 0.0
        self._counts = counts
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = self._router(control.LARGEST_BYTES)
        self._data = self._router(LARGEST_MESSAGE)
        self.address = self._control.getsockopt_string(zmq.LAST_ENDPOINT)
        self.data_address = self._data.getsockopt_string(zmq.LAST_ENDPOINT)
        self._poller = zmq.Poller()
        self._poller.register(self._control, zmq.POLLIN)
        self._poller.register(self._data, zmq.POLLIN)
        self._peers: dict[bytes, _Peer] = {}
        self._resynced: dict[bytes, float] = {}

    def welcome(self, campaign: Campaign | None) -> dict[str, Any]:
        """What a worker is told; without a campaign, that its fields are to be learned."""
        fields, stream = {}, {"undeclared": True, "segment_steps": 1, "window_bytes": 1 << 26}
        if campaign is not None:
            fields = {name: spec.model_dump(mode="json") for name, spec in campaign.fields.items()}
            stream = campaign.stream.model_dump(mode="json")
        return {
            "campaign": CAMPAIGN,
            "name": campaign.name if campaign else "try",
            "fields": fields,
            "stream": stream,
            "shards": {SHARD: {"address": self.data_address, "epoch": 1}},
        }

    def turn(self, desk: Desk, timeout_s: float) -> None:
        """Waits for messages and answers them."""
        ready = dict(self._poller.poll(round(1000 * timeout_s)))
        began = time.monotonic()
        if self._control in ready:
            self._answer(desk)
        if self._data in ready:
            for _ in range(64):
                try:
                    identity, frame, *payloads = self._data.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                except ValueError:
                    continue  # no message of ours
                self._take(identity, frame, payloads)
            self.busy_s += time.monotonic() - began

    def close(self) -> None:
        """May be called twice."""
        if not self._context.closed:
            self._control.close(linger=200)
            self._data.close(linger=200)
            self._context.term()

    def _router(self, largest: int) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.MAXMSGSIZE, largest)
        router.setsockopt(zmq.RCVHWM, 0)
        router.setsockopt(zmq.SNDHWM, 0)
        router.bind("tcp://127.0.0.1:*")
        return router

    def _answer(self, desk: Desk) -> None:
        identity, *frames = self._control.recv_multipart()
        number = None
        try:
            request = control.decode(frames[0] if frames else b"")
            number = request.get("request")
            reply = desk.answer(request, time.monotonic())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reply = {"kind": "refused", "why": f"The request is not understood: {error}."}
        self._control.send_multipart([identity, control.encode({**reply, "request": number})])

    def _take(self, identity: bytes, frame: bytes, payloads: list[bytes]) -> None:
        try:
            header = wire.decode(frame)
        except WireError:
            return
        if header.campaign != CAMPAIGN:
            return
        if header.kind == Kind.HELLO:
            self._peers[identity] = _Peer(header.part, header.step)
            self._resynced.pop(identity, None)
            self._acknowledge(identity)
            return
        peer = self._peers.get(identity)
        if header.kind == Kind.BYE:
            self._peers.pop(identity, None)
        elif peer is None or header.sequence > peer.expected:
            self._resync(identity, again=header.kind == Kind.PROBE)
        elif header.kind == Kind.PROBE or header.sequence < peer.expected:
            self._acknowledge(identity)
        else:
            peer.expected += 1
            if header.kind == Kind.OPEN:
                peer.leases.add(header.lease)
            elif header.kind in (Kind.END, Kind.FAIL):
                peer.leases.discard(header.lease)
            self._counts.take(header, payloads, time.monotonic())
            self._acknowledge(identity)

    def _acknowledge(self, identity: bytes) -> None:
        peer = self._peers[identity]
        header = Header(Kind.ACK, CAMPAIGN, step=peer.greeting, sequence=peer.expected)
        grants = wire.encode_grants([(lease, ENDLESS) for lease in peer.leases])
        self._data.send_multipart([identity, bytes(wire.encode(header)), grants])

    def _resync(self, identity: bytes, again: bool) -> None:
        now = time.monotonic()
        if again or now - self._resynced.get(identity, -math.inf) >= RESYNC_PAUSE_S:
            self._resynced[identity] = now
            resync = bytes(wire.encode(Header(Kind.RESYNC, CAMPAIGN)))
            self._data.send_multipart([identity, resync])
