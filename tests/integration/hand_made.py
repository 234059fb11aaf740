"""A part that speaks the wire by hand, right or wrong; follows WIRE.md, not the Python client."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import zmq

from penstock import wire
from penstock.wire import FieldEntry, Header, Kind

SHAPE = (8, 6)
WHOLE = [0, 2, *SHAPE, 0, 0, *SHAPE]  # a plan: the box that is the whole field


def content(simulation: int, step: int) -> np.ndarray:
    return (1000 * simulation + step + np.arange(48) / 48).astype("f4").reshape(SHAPE)


class HandMade:
    """One connection; every answer of the shard is kept."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        campaign: int,
        part: int = 0,
        n_parts: int = 1,
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self.campaign, self.part, self.n_parts = campaign, part, n_parts
        self.sequence = self.acknowledged = 0
        self.granted: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self.flags = 0
        self.kinds: list[Kind] = []

    def send(self, kind: Kind, *payloads: bytes, numbered: bool = True, **header: Any) -> None:
        """A message as it is told; numbered ones get the next number."""
        values: dict[str, Any] = {
            "campaign": self.campaign, "part": self.part, "n_parts": self.n_parts,
            "sequence": self.sequence, **header,
        }  # fmt: skip
        if numbered:
            self.sequence += 1
        frame = bytes(wire.encode(Header(kind, **values)))
        self.socket.send_multipart([frame, *payloads])

    def hello(self, greeting: int = 1, *offer: bytes) -> None:
        self.sequence = 0
        self.send(Kind.HELLO, *offer, numbered=False, step=greeting)

    def plan(self, *numbers: int, plan: int = 1) -> None:
        payload = np.array(numbers or WHOLE, dtype="<i8").tobytes()
        self.send(Kind.PLAN, payload, plan=plan, fields=(FieldEntry(0, 4, len(payload)),))

    def open(self, simulation: int, lease: int, plan: int = 1, **header: Any) -> None:
        values = np.array([simulation, 0.5]).tobytes()
        more = {"step": 0, "geometry": 1, "plan": plan, **header}
        self.send(Kind.OPEN, values, simulation=simulation, lease=lease, **more)

    def begin(self, simulation: int, lease: int) -> None:
        """Everything before the first step, and credit for it."""
        self.hello()
        self.plan()
        self.open(simulation, lease)
        self.until(lambda: self.granted.get(lease, 0) > 0 or lease in self.refused)

    def step(self, simulation: int, lease: int, step: int, values: Any = None) -> None:
        array = content(simulation, step) if values is None else values
        entry = FieldEntry(0, 1, array.nbytes)
        self.send(
            Kind.PART, array.tobytes(), simulation=simulation, lease=lease, step=step, t=0.1 * step,
            fields=(entry,), plan=1,
        )  # fmt: skip

    def end(self, simulation: int, lease: int, n_steps: int) -> None:
        self.send(Kind.END, simulation=simulation, lease=lease, step=n_steps)

    def run(self, simulation: int, lease: int, n_steps: int) -> None:
        """A whole simulation as it should be."""
        self.begin(simulation, lease)
        for step in range(n_steps):
            self.until(lambda: self.granted.get(lease, 0) > step)  # noqa: B023
            self.step(simulation, lease, step)
        self.end(simulation, lease, n_steps)
        self.settle()

    def settle(self) -> None:
        """Until everything that was sent is acknowledged."""
        self.until(lambda: self.acknowledged == self.sequence)

    def until(self, condition: Any, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"It never came; {self.kinds[-10:]}"
            if self.socket.poll(50):
                self._hear(self.socket.recv_multipart())
            else:
                self.send(Kind.PROBE, numbered=False)

    def _hear(self, frames: list[bytes]) -> None:
        header = wire.decode(frames[0])
        assert header.campaign == self.campaign
        self.kinds.append(header.kind)
        if header.kind == Kind.ACK:
            self.acknowledged, self.flags = header.sequence, header.flags
            if len(frames) > 1:
                self.granted.update(wire.decode_grants(frames[1]))
        elif header.kind == Kind.REFUSED:
            self.refused[header.lease] = frames[1].decode()

    def close(self) -> None:
        self.socket.close()
