"""Reliable, ordered delivery from an MPI rank to a shard; owned by the link, used by simulations.

Every message has a sequence number; the shard acknowledges cumulatively. What is unacknowledged
stays in a byte-bounded window. There is one way of recovery: a shard that does not know this peer
or misses a number answers RESYNC; then HELLO, the announcements (plans, the open simulation) and
the whole window are sent again under new numbers. Repeats are dropped by the shard.

There is no thread here: ZeroMQ's own I/O thread sends, and answers are read whenever the solver
calls in. Deadlines count the shard's silence while this side asks, never the solver's own time.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Callable, NamedTuple

import numpy as np
import zmq

from penstock import wire
from penstock.arena import Arena
from penstock.errors import ConnectionLost
from penstock.frames import Frames
from penstock.keys import ClientKeys
from penstock.routes import stays_here
from penstock.wire import Header, Kind

PROBE_S = 1.0
GLANCE_S, RARELY_S = 0.01, 0.05  # between two looks for answers: with much under way, with little
MUCH_BYTES = 1 << 22
# Ahead of a receiver that reads our memory, or two messages: little enough to be in the cache when
# it does. There is no network to fill, and with several clients at 64 MiB each nothing was in it.
LENT_WINDOW_BYTES = 1 << 24
# What ZeroMQ gives to the system ahead, where everything stays on this host: there is no network to
# fill, and the system's own choice, megabytes, is out of the caches before the receiver reads it.
LOCAL_BUFFER_BYTES = 1 << 18
_LENT_BYTES = 1 << 12  # below this the receiver is quicker with the bytes than with their place
_OFFSET = struct.Struct("<Q")
_POLLIN = int(zmq.POLLIN)  # as an enum it takes twice as long as the question


class _Posted(NamedTuple):
    """A message in the window."""

    sequence: int
    header: Header
    payloads: list[np.ndarray]
    memory: Sequence[np.ndarray]  # what `payloads` are parts of
    n_bytes: int
    give_back: Callable[[np.ndarray], None] | None


class Sender:
    """The connection of one part to one shard.

    `refused` maps a lease to the shard's reason; `granted` maps it to the number of its segments
    that may be sent to this shard, counted from the first.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        shard: str,
        address: str,
        identity: Header,
        window_bytes: int,
        patience_s: float = 120.0,
        keys: ClientKeys | None = None,
        arena: Arena | None = None,
    ) -> None:
        self.shard = shard
        self.refused: dict[int, str] = {}
        self._granted: dict[int, int] = {}
        self._identity = identity  # carries campaign, part and n_parts
        self._window_bytes = window_bytes
        self._patience_s = patience_s
        self._arena, self._lending = arena, False
        self._frames = Frames()
        self._announced: dict[Hashable, tuple[Header, list[np.ndarray]]] = {}
        self._expiring: deque[tuple[int, Hashable]] = deque()
        self._unacked: deque[_Posted] = deque()
        self._unacked_bytes = 0
        self._next = 0
        self._greeting = 0
        self._greeted_s, self._welcome = 0.0, False
        self._looked_s = 0.0
        self._heard_s = self._probed_s = time.monotonic()
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20000)
        if keys is not None:
            keys.put_on(self._socket)
        if stays_here(address):
            self._socket.setsockopt(zmq.SNDBUF, LOCAL_BUFFER_BYTES)
        self._socket.connect(address)
        self._hello()

    def granted(self, lease: int) -> int:
        """How many segments of the lease may be sent to this shard in total."""
        return self._granted.get(lease, 0)

    @property
    def unacked_bytes(self) -> int:
        return self._unacked_bytes

    def announce(self, key: Hashable, header: Header, payloads: list[np.ndarray]) -> None:
        """Posts a message that a restarted shard must hear again before anything else."""
        self._announced[key] = (header, payloads)
        self.post(header, payloads)

    def withdraw(self, key: Hashable) -> None:
        """Ends an announcement once all that was posted under it has been acknowledged."""
        self._expiring.append((self._next, key))
        self._expire(self._unacked[0].sequence if self._unacked else self._next)

    def forget(self, lease: int) -> None:
        """Drops what is kept about a lease that is over."""
        self._granted.pop(lease, None)
        self.refused.pop(lease, None)

    def post(
        self,
        header: Header,
        payloads: list[np.ndarray],
        memory: Sequence[np.ndarray] | None = None,
        give_back: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        """Sends one message and keeps it until it is acknowledged; never blocks.

        memory: the arrays of which the payloads are parts, if not they themselves; give_back is
        then told each of them. By that time ZeroMQ has done with it too: one pipe carries all
        messages in their order, repeats as well, and the last has arrived.
        """
        memory = payloads if memory is None else memory
        n_bytes = wire.n_bytes(header) + sum(array.nbytes for array in memory)
        self._keep(_Posted(self._next, header, payloads, memory, n_bytes, give_back))

    def has_room(self) -> bool:
        """Whether the window takes one more message, of any size."""
        return self._unacked_bytes < self._most_ahead()

    def has_much_room(self) -> bool:
        """Half of the window: a solver that had to wait is woken once for several steps.

        After each sleep the caches have nothing of it. Of what is lent, one message is always room
        for another.
        """
        if self._lending and len(self._unacked) == 1:
            return self.has_room()
        return self._unacked_bytes <= self._most_ahead() // 2

    def _most_ahead(self) -> int:
        """Bytes that may be unacknowledged; of what is lent two messages of any size."""
        if self._lending and len(self._unacked) > 1:
            return min(self._window_bytes, LENT_WINDOW_BYTES)
        return self._window_bytes

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Reads answers until ready() holds; raises ConnectionLost when the shard stays silent."""
        self.flow()
        began = time.monotonic()
        probe_at = began + PROBE_S
        while not ready():
            if self._socket.poll(int(PROBE_S * 1000)):
                self.flow()
                continue
            now = time.monotonic()
            if now >= probe_at:
                self._probe()
                probe_at = now + PROBE_S
            silent_s = now - max(began, self._heard_s)
            if silent_s > self._patience_s:
                raise ConnectionLost(
                    f"Shard {self.shard} has not answered for {silent_s:.0f} s while this worker "
                    f"waited for {what}. It is restarted by its supervisor if that still runs; "
                    "look at the campaign's log."
                )

    def glance(self, now_s: float) -> None:
        """As `flow`, but for a fast solver not with every step: a look costs as much as a send."""
        if now_s >= self._looked_s + (GLANCE_S if self._unacked_bytes > MUCH_BYTES else RARELY_S):
            self.flow()

    def flow(self) -> None:
        """Reads every answer that is here, and asks for one that is overdue; never blocks.

        A shard that was restarted hears of this part by the question: after the last message of a
        simulation there may be no other for a long time.
        """
        while int(self._socket.get(zmq.EVENTS)) & _POLLIN:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            self._heard_s = time.monotonic()
            self._on_message(frames)
        self._looked_s = time.monotonic()
        if self._unacked and self._looked_s - max(self._heard_s, self._probed_s) > PROBE_S:
            self._probe()

    def drain(self) -> None:
        """Waits until everything that was posted is acknowledged."""
        self.wait(lambda: not self._unacked, "acknowledgements")

    def close(self, linger_s: float = 1.0) -> None:
        """Says goodbye and closes the socket; may be called twice."""
        if self._socket.closed:
            return
        self._raw(self._identity._replace(kind=Kind.BYE))
        self._socket.close(linger=int(linger_s * 1000))
        self._frames.clear()

    def _on_message(self, frames: list[bytes]) -> None:
        header = wire.decode(frames[0])
        if header.kind == Kind.ACK:
            if header.step == self._greeting:
                self._welcome, self._lending = True, bool(header.flags & wire.BORROWS)
                self._acknowledged(header.sequence)
            for lease, segments in wire.decode_grants(frames[1]) if len(frames) > 1 else ():
                self._granted[lease] = max(segments, self._granted.get(lease, 0))
        elif header.kind == Kind.RESYNC:
            # Until this greeting is answered, it is about what was sent before the greeting.
            if self._welcome or time.monotonic() - self._greeted_s > PROBE_S:
                self._resynchronise()
        elif header.kind == Kind.REFUSED:
            reason = frames[1].decode("utf-8", "replace") if len(frames) > 1 else "no reason given"
            self.refused.setdefault(header.lease, reason)  # the first says why

    def _acknowledged(self, sequence: int) -> None:
        while self._unacked and self._unacked[0].sequence < sequence:
            posted = self._unacked.popleft()
            self._unacked_bytes -= posted.n_bytes
            if posted.give_back is not None:
                for array in posted.memory:
                    posted.give_back(array)
        self._expire(sequence)

    def _expire(self, sequence: int) -> None:
        while self._expiring and self._expiring[0][0] <= sequence:
            self._announced.pop(self._expiring.popleft()[1], None)

    def _resynchronise(self) -> None:
        window = list(self._unacked)
        self._unacked.clear()
        self._unacked_bytes = 0
        self._hello()
        for header, payloads in list(self._announced.values()):
            self.post(header, payloads)
        for posted in window:
            self._keep(posted._replace(sequence=self._next))
        self._expiring = deque((self._next, key) for _, key in self._expiring)

    def _hello(self) -> None:
        self._greeting += 1
        self._greeted_s, self._welcome = time.monotonic(), False
        self._next, self._lending = 0, False
        offer = () if self._arena is None else (self._arena.offer,)
        self._raw(self._identity._replace(kind=Kind.HELLO, step=self._greeting), *offer)

    def _probe(self) -> None:
        self._probed_s = time.monotonic()
        self._raw(self._identity._replace(kind=Kind.PROBE, sequence=self._next))

    def _raw(self, header: Header, *frames: bytes) -> None:
        self._socket.send_multipart([wire.encode(header), *frames], zmq.NOBLOCK)

    def _keep(self, posted: _Posted) -> None:
        """Puts a message into the window and on its way, under the next number."""
        self._unacked.append(posted)
        self._unacked_bytes += posted.n_bytes
        header = posted.header._replace(sequence=self._next)
        self._next += 1
        places = self._places(header, posted.payloads) if self._lending else None
        if places is not None:
            alone = [payload.tobytes() for payload in posted.payloads[: -len(places)]]
            header = header._replace(fields=wire.lent(header.fields))
            self._socket.send_multipart([wire.encode(header), *alone, *places])
            return
        payloads = posted.payloads
        self._socket.send(wire.encode(header), zmq.SNDMORE if payloads else 0)
        for i, (payload, memory) in enumerate(zip(payloads, posted.memory)):
            more = zmq.SNDMORE if i + 1 < len(payloads) else 0
            stays = posted.give_back is not None and payload is memory
            self._socket.send(self._frames.of(payload, stays), more)

    def _places(self, header: Header, payloads: list[np.ndarray]) -> list[bytes] | None:
        """Where the receiver finds the values of each row in our memory; None: send them."""
        n = len(header.fields)
        if not n or self._arena is None or sum(p.nbytes for p in payloads[-n:]) < _LENT_BYTES:
            return None
        offsets = [self._arena.offset(payload) for payload in payloads[-n:]]
        return None if None in offsets else [_OFFSET.pack(each) for each in offsets]
