"""The feed socket of a receiver: hands batches of sample ids to the rank beside it.

Binary where it is hot (`feed_messages.py`), JSON for the rest. Fields don't pass here: the rank
gathers them from the slab, and checks the generations that came with the ids.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from penstock_server.feed_messages import (
    Generations,
    Group,
    Ids,
    pack_group,
    unpack_cancelled,
    unpack_report,
)
from penstock_server.shard import Shard
from penstock_server.slab import NOTED

MESSAGES = 64
PART = 4  # of what is stored, no more than this part is promised
LEAST = 4  # batches that are promised all the same
REDRAW_S = 0.2  # for so long after a redraw, only full batches of unseen samples are offered


class Dispenser:
    """Keeps up to `depth` batches on their way to the attached rank.

    What can be drawn now is sent now, in one message; as the rank says in groups what it has taken,
    these come in groups too.
    """

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
        self._out: dict[int, tuple[Ids, Generations]] = {}  # with generations
        self._asked: tuple[bytes, int] | None = None  # by whom, and the number of the request
        self._answer: dict[str, Any] = {}  # to it
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if address.startswith("ipc://"):
            Path(address[6:]).unlink(missing_ok=True)
        self.socket.bind(address)

    def turn(self) -> None:
        """Answers what the rank asks, and fills the pipe with batches.

        One request a turn: when the next is answered, the shard's books show the one before.
        """
        for _ in range(MESSAGES):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._take(frames)
            if frames[1] == b"J":
                break
        self._fill()

    def close(self) -> None:
        self.socket.close()

    def _take(self, frames: list[bytes]) -> None:
        identity, kind, *rest = frames
        if kind == b"T":
            report = unpack_report(rest[0])
            for draw in report.draws:
                promised = draw.epoch == self._epoch  # else cancelled, or of a receiver before
                if promised and self._out.pop(draw.number, None) is None:
                    continue  # said again
                still = self._still(draw.samples, draw.generations)
                self._shard.reservoir.confirm(still, draw.batch, promised)
            books = self._shard.slab.books
            if books[NOTED] >= report.after:  # else one was lost with the receiver before this one
                books[NOTED] = max(int(books[NOTED]), report.number)
        elif kind == b"C":
            epoch, number = unpack_cancelled(rest[0])
            if epoch == self._epoch and number in self._out:
                self._cancel(number)
        elif kind == b"J":
            body = json.loads(rest[0])
            asked = identity, body["request"]
            if asked != self._asked:  # a ledger, written once more, would alter its checkpoint
                self._answer, self._asked = self._ask(identity, body), asked
            answer = {"request": body["request"], **self._answer}
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
        elif what == "report":
            pass  # everything that was said before it is noted
        elif what == "snapshot":
            self._shard.snapshot(body["batch"])
        elif what == "restore":
            self._out.clear()
            self._shard.restore(body["batch"])
            self._unseen_only = False
        elif what == "export":
            self._shard.export(Path(body["path"]), body["batch"])
        elif what == "settle":
            self._shard.ledger.settle(body["batch"])
        else:
            return {"error": f"There is no request {what!r}."}
        return {"ok": True}

    def _cancel(self, number: int) -> None:
        self._shard.reservoir.cancel(self._still(*self._out.pop(number)))

    def _still(self, samples: Ids, generations: Generations) -> Ids:
        """Without those whose slot was given to another segment since they were promised."""
        now = self._shard.slab.descriptor["generation"][samples // self._shard.spec.windows]
        still: Ids = samples[now == generations]
        return still

    def _fill(self) -> None:
        shard, stored = self._shard, len(self._shard.reservoir.stored)
        if not self._started:
            if stored < self._threshold and not (shard.credit.blocked or shard.over):
                return
            self._started = stored > 0
        rank = self._rank
        if rank is None:
            return
        share = self._share(stored)
        while len(self._out) < share:
            batches = self._draw(stored, share - len(self._out))
            if not batches:
                return
            whole = [batch for batch in batches if len(batch[0]) == self._size]
            for group in (whole, batches[len(whole) :]):
                if group:
                    self._send(rank, group)

    def _share(self, stored: int) -> int:
        """Batches that may be out: with all of a small reservoir promised, nothing new is drawn."""
        return min(self._depth, max(LEAST, stored // (PART * self._size)))

    def _draw(self, stored: int, most: int) -> list[tuple[Ids, int]]:
        """Up to `most` batches out of what is there now, each with its number of first draws.

        Only the last may be short.
        """
        shard, unseen = self._shard, self._shard.reservoir.unseen
        batches: list[tuple[Ids, int]] = []
        patient = time.monotonic() < self._patient_until_s
        unseen_only = self._unseen_only or patient or shard.reservoir.policy in ("fifo", "firo")
        while len(batches) < most:
            before = len(unseen)
            n = before if unseen_only else stored
            if n == 0 or (n < self._size and not (shard.credit.blocked or shard.over)):
                break
            samples = shard.choose(self._size, unseen_only)
            if len(samples):
                batches.append((samples, before - len(unseen)))
            if len(samples) < self._size:
                break
        return batches

    def _send(self, rank: bytes, batches: list[tuple[Ids, int]]) -> None:
        samples = np.concatenate([batch for batch, _ in batches])
        windows = self._shard.spec.windows
        generations = self._shard.slab.descriptor["generation"][samples // windows]
        first, at = self._number, 0
        for batch, _ in batches:
            self._out[self._number] = (batch, generations[at : at + len(batch)])
            self._number += 1
            at += len(batch)
        n_first = [n for _, n in batches]
        size = len(batches[0][0])
        group = Group(self._epoch, first, size, samples, generations, n_first)
        self.socket.send_multipart([rank, *pack_group(group)])
