"""A rank's line to its receiver: batches that were promised, draws that are told, requests.

Used by `ShardFeed`, and by its thread that works ahead: whoever uses the socket holds the lock.
Promises are taken and draws added by the rank alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from typing import Any

import zmq

from penstock_server.draw_reports import DrawReports
from penstock_server.feed_messages import pack_cancelled, unpack_group
from penstock_server.feed_settings import FeedSettings
from penstock_server.gathering import Gatherer, Promise
from penstock_server.slab import NOTED, Slab

RETRY_S = 1.0
REPORT_S = 0.05  # a slow trainer tells of each batch, so that what it is promised is of today


class FeedLine:
    """The socket of one rank, what came on it, and what is to leave."""

    def __init__(self, settings: FeedSettings, slab: Slab, gatherer: Gatherer) -> None:
        self._settings, self._gatherer, self._books = settings, gatherer, slab.books
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(settings.address)
        self._lock = threading.RLock()
        self._epoch = time.time_ns() >> 10  # later than that of any rank before this one
        self._request = 0
        self._reported_s = time.monotonic()
        self._low = settings.depth  # promises left when more are looked for
        self.ahead: deque[Promise] = deque()
        self.reports = DrawReports(max(self._epoch, int(self._books[NOTED])))
        self.unseen_only = self.held = False

    @property
    def due(self) -> bool:
        """Whether batches may have come that will soon be needed, or draws are to be told."""
        return len(self.ahead) <= self._low or self._reports_due()

    def turn(self) -> None:
        """Reads what has come, then tells of draws."""
        with self._lock:
            if len(self.ahead) <= self._low:
                self._read()
            if self._reports_due():
                self._report()

    def wait(self, timeout_s: float) -> None:
        """Until something comes; the receiver knows of all draws meanwhile."""
        with self._lock:
            self._report()
            self._socket.poll(int(1000 * timeout_s))
            self._read()

    def cancel(self, promise: Promise) -> None:
        """It was taken out of `ahead` and could not be gathered."""
        with self._lock:
            self._socket.send_multipart(pack_cancelled(promise.epoch, promise.number))

    def settle(self) -> None:
        """Returns when the slab has every draw so far noted."""
        deadline = time.monotonic() + self._settings.patience_s
        with self._lock:
            self._report()
            while self._unnoted():
                self.ask("report")  # the answer comes after what was said before it
                if not self._unnoted():
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"Shard {self._settings.shard} was told of draws and did not note them "
                        f"within {self._settings.patience_s:.0f} s; this is a defect."
                    )
                self._report_again()  # that receiver was killed, and another one has answered

    def greet(self) -> None:
        """A receiver that was started (again) knows no rank; what it had handed out is void."""
        with self._lock:
            self._report_again()
            self.restart("attach")

    def restart(self, what: str) -> None:
        """A new epoch: batches under way are void, and the receiver puts their samples back."""
        with self._lock:
            self._epoch += 1
            self.ahead.clear()
            self.ask(what)

    def restore(self, batch: int) -> None:
        """Draws after `batch` are forgotten, here and there."""
        with self._lock:
            self.restart("attach")
            self.reports.clear()
            self.ask("restore", batch=batch)
            self.restart("attach")

    def ask(self, what: str, **body: Any) -> None:
        """A request to the receiver, repeated until it is answered; all are idempotent.

        It comes after all draws so far, and is put to a receiver that knows of them.
        """
        patience_s = self._settings.patience_s
        with self._lock:
            self._report()
            deadline = time.monotonic() + patience_s
            self._request += 1
            request = {
                "request": self._request, "what": what, "epoch": self._epoch,
                "depth": self._settings.depth, "batch_size": self._settings.batch_size,
                "unseen_only": self.unseen_only, "held": self.held, **body,
            }  # fmt: skip
            frame = json.dumps(request).encode()
            while True:
                self._socket.send_multipart([b"J", frame])
                answer = self._answer(time.monotonic() + RETRY_S)
                if answer is not None:
                    if "error" in answer:
                        raise RuntimeError(f"Shard {self._settings.shard}: {answer['error']}")
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"Shard {self._settings.shard} did not answer {what!r} within "
                        f"{patience_s:.0f} s; its receiver is gone."
                    )
                self._report_again()

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            if not self._socket.closed:
                self._report()
                self._socket.close()
                self._context.term()

    def _answer(self, until_s: float) -> dict[str, Any] | None:
        """To the newest request; None when there was none until then."""
        while (left_s := until_s - time.monotonic()) > 0:
            if not self._socket.poll(int(1000 * left_s)):
                continue
            frames = self._socket.recv_multipart()
            if frames[0] != b"J":
                self._hear(frames)
                continue
            answer: dict[str, Any] = json.loads(frames[1])
            if answer["request"] == self._request:
                return answer
        return None

    def _read(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._hear(frames)

    def _hear(self, frames: list[bytes]) -> None:
        """Batches that were promised; late answers and those of epochs before are left alone."""
        if frames[0] != b"B":
            return
        group = unpack_group(frames[1])
        if group.epoch == self._epoch:
            self.ahead.extend(self._gatherer.promises(group))

    def _reports_due(self) -> bool:
        """Whether half of what was promised is drawn, or some of it was long ago."""
        waiting = self.reports.waiting
        if not waiting:
            return False
        return len(waiting) >= len(self.ahead) or time.monotonic() - self._reported_s > REPORT_S

    def _report(self) -> None:
        if self.reports.waiting:
            self._socket.send_multipart(self.reports.pack())
            self._reported_s = time.monotonic()
            self._low = max(1, 3 * len(self.ahead) // 4)  # it is answered in a batch or two

    def _report_again(self) -> None:
        """A receiver that was killed took with it what it had heard and not noted."""
        for frames in self._unnoted():
            self._socket.send_multipart(frames)

    def _unnoted(self) -> list[list[bytes]]:
        return self.reports.again(int(self._books[NOTED]))
