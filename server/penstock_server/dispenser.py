"""The feed socket of a receiver: hands batches of sample ids to the rank beside it.

Binary where it is hot (batches, taken), JSON for the rest. Fields don't pass here: the rank
gathers them from the slab, and checks the generations that came with the ids.
"""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from penstock_server.reservoir import Ids
from penstock_server.shard import Shard

BATCH = struct.Struct("<QQ")  # epoch, number of the batch within it
TAKEN = struct.Struct("<QQQ")  # epoch, number within it, batch of the training run
MESSAGES = 64
REDRAW_S = 0.2  # for so long after a redraw, only full batches of unseen samples are offered


class Dispenser:
    """Keeps `depth` batches on their way to the attached rank."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], shard: Shard, address: str, threshold: int
    ) -> None:
        self._shard = shard
        self._threshold = threshold
        self._started = False
        self._rank: bytes | None = None
        self._epoch = 0
        self._depth = 0
        self._size = 0
        self._unseen_only = False
        self._patient_until_s = 0.0
        self._number = 0
        self._out: dict[int, tuple[Ids, npt.NDArray[np.uint32]]] = {}  # with generations
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if address.startswith("ipc://"):
            Path(address[6:]).unlink(missing_ok=True)
        self.socket.bind(address)

    def turn(self) -> None:
        """Answers what the rank asks, and fills the pipe with batches."""
        for _ in range(MESSAGES):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._take(frames)
        self._fill()

    def close(self) -> None:
        self.socket.close()

    def _take(self, frames: list[bytes]) -> None:
        identity, kind, *rest = frames
        if kind == b"T":
            epoch, number, batch = TAKEN.unpack(rest[0])
            samples = np.frombuffer(rest[1], dtype=np.int64)
            if epoch == self._epoch:
                self._out.pop(number, None)
            generations = np.frombuffer(rest[2], dtype=np.uint32)
            self._shard.reservoir.confirm(self._still(samples, generations), batch)
        elif kind == b"C":
            epoch, number, _ = TAKEN.unpack(rest[0])
            if epoch == self._epoch and number in self._out:
                self._cancel(number)
        elif kind == b"J":
            body = json.loads(rest[0])
            answer = {"request": body["request"], **self._ask(identity, body)}
            self.socket.send_multipart([identity, b"J", json.dumps(answer).encode()])

    def _ask(self, identity: bytes, body: dict[str, Any]) -> dict[str, Any]:
        what = body["what"]
        if what in ("attach", "redraw"):
            if what == "redraw":
                self._patient_until_s = time.monotonic() + REDRAW_S
            self._shard.credit.held = bool(body["held"])
            if identity != self._rank or body["epoch"] != self._epoch:
                self._rank, self._epoch = identity, body["epoch"]
                self._depth, self._size = body["depth"], body["batch_size"]
                self._unseen_only = body["unseen_only"]
                self._number = 0
                for out in list(self._out):
                    self._cancel(out)
        elif what == "hold":
            self._shard.credit.held = bool(body["held"])
        elif what == "snapshot":
            self._shard.snapshot(body["batch"])
        elif what == "restore":
            self._out.clear()
            self._shard.restore(body["batch"])
            self._unseen_only = False
        elif what == "export":
            self._shard.ledger.copy(Path(body["path"]))
        elif what == "settle":
            self._shard.ledger.settle()
        else:
            return {"error": f"There is no request {what!r}."}
        return {"ok": True}

    def _cancel(self, number: int) -> None:
        self._shard.reservoir.cancel(self._still(*self._out.pop(number)))

    def _still(self, samples: Ids, generations: npt.NDArray[np.uint32]) -> Ids:
        """Without those whose slot was given to another segment since they were promised."""
        now = self._shard.slab.descriptor["generation"][samples // self._shard.spec.windows]
        still: Ids = samples[now == generations]
        return still

    def _fill(self) -> None:
        shard, stored = self._shard, len(self._shard.reservoir.stored)
        starved = shard.credit.blocked or not any(s.live for s in shard.streams.values())
        if not self._started:
            if stored < self._threshold and not (shard.credit.blocked or shard.over):
                return
            self._started = stored > 0
        while self._rank is not None and len(self._out) < self._depth:
            patient = time.monotonic() < self._patient_until_s
            unseen_only = self._unseen_only or patient or shard.reservoir.policy in ("fifo", "firo")
            n = len(shard.reservoir.unseen) if unseen_only else stored
            if n == 0 or (n < self._size and not (starved or shard.over)):
                return
            samples = shard.choose(self._size, unseen_only)
            if len(samples) == 0:
                return
            generations = shard.slab.descriptor["generation"][samples // shard.spec.windows]
            self._out[self._number] = (samples, generations)
            head = BATCH.pack(self._epoch, self._number)
            self._number += 1
            self.socket.send_multipart(
                [self._rank, b"B", head, samples.tobytes(), generations.tobytes()]
            )
