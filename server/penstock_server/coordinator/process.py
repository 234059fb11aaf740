"""The coordinator's process: one ROUTER socket, a clock and a database around the state machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import zmq

from penstock.control import LARGEST_BYTES, decode, encode
from penstock_server.coordinator.requests import Event, NotAccepted, Stop, Tick, parse
from penstock_server.coordinator.settings import Settings
from penstock_server.coordinator.state import State
from penstock_server.coordinator.store import Store
from penstock_server.curve import Guard
from penstock_server.metrics import serve_counts

TICK_S = 0.25
BIND_PATIENCE_S = 10.0  # after a kill, the port may be taken for a moment
LAST_WORDS_S = 0.5  # for those whose reply was lost, and to flush
LEAVING_S = 20.0  # after the supervisor's end or a signal; then without waiting for agents


class Coordinator:
    """Serves one campaign until the supervisor says stop, or is no longer there.

    clock: seconds that do not go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._store = Store(settings.database)
        self._state = State(settings, self._store.saved(), clock())
        self._store.write(self._state.unsaved())
        self._context = zmq.Context()
        self._guard = Guard(self._context, settings.server_keys, "coordinator")
        self._router = _bind(self._context, settings.address, clock, self._guard)
        self._poller = zmq.Poller()
        for socket in (self._router, *self._guard.sockets):
            self._poller.register(socket, zmq.POLLIN)
        self._counters, self._seconds = self._count(), self._state.seconds()
        self._signalled = ""
        self._leave_at: float | None = None
        self._closed = False

    def counters(self) -> dict[str, float]:
        """Name -> value as of the last tick, for the metrics; from any thread."""
        return self._counters

    def seconds(self) -> dict[tuple[str, str], float]:
        """The workers' as of the last tick, by activity; as `counters`."""
        return self._seconds

    def run(self) -> None:
        """The loop. Returns when all have left after a stop."""
        parent = os.getppid()
        next_tick = self._clock()
        done_at: float | None = None
        while done_at is None or self._clock() < done_at:
            wait_s = max(0.0, min(TICK_S, next_tick - self._clock()))
            if self._poller.poll(int(wait_s * 1000)):
                self._guard.turn()
                self._answer_all()
            if self._clock() >= next_tick:
                next_tick = self._clock() + TICK_S
                self._apply(Tick())
                self._counters, self._seconds = self._count(), self._state.seconds()
                self._look_around(parent)
            overdue = self._leave_at is not None and self._clock() >= self._leave_at
            if done_at is None and (self._state.finished or overdue):
                done_at = self._clock() + LAST_WORDS_S

    def leave(self, why: str) -> None:
        """Stop the campaign and return from `run` soon; signal handlers call it."""
        self._signalled = self._signalled or why

    def backup(self, path: str) -> None:
        """Copy the database while it is in use."""
        self._store.backup(path)

    def close(self) -> None:
        """May be called twice."""
        if not self._closed:
            self._closed = True
            self._guard.close()
            self._router.close(linger=500)
            self._context.term()
            self._store.close()

    def _count(self) -> dict[str, float]:
        return {**self._state.counters(), **self._guard.counts()}

    def _look_around(self, parent: int) -> None:
        if os.getppid() != parent:
            self.leave("the supervisor is gone.")
        if self._signalled and self._leave_at is None:
            self._leave_at = self._clock() + LEAVING_S
            self._apply(Stop(why=self._signalled))

    def _answer_all(self) -> None:
        deadline = self._clock() + TICK_S  # a flood must not keep the ticks waiting
        while self._clock() < deadline:
            try:
                identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._send(identity, self._answer(frames))

    def _answer(self, frames: list[bytes]) -> dict[str, Any]:
        if len(frames) != 1:
            return {"kind": "refused", "why": "A request is one frame.", "request": None}
        try:
            message = decode(frames[0])
        except ValueError as error:
            return {"kind": "refused", "why": str(error), "request": None}
        request = message.get("request")
        try:
            reply = {**self._apply(parse(message)), "request": request}
        except NotAccepted as error:
            return {"kind": "refused", "why": str(error), "request": request}
        return {**reply, **self._guard.counts()} if reply["kind"] == "status" else reply

    def _apply(self, event: Event) -> dict[str, Any]:
        outcome = self._state.handle(event, self._clock())
        self._store.write(outcome.records)
        return outcome.reply

    def _send(self, identity: bytes, reply: dict[str, Any]) -> None:
        try:
            frame = encode(reply)
        except ValueError as error:
            frame = encode({"kind": "refused", "why": str(error), "request": reply.get("request")})
        with contextlib.suppress(zmq.Again):  # it does not read; it will ask again
            self._router.send_multipart([identity, frame], zmq.NOBLOCK)


def serve(settings: Settings) -> None:
    """Run a coordinator in this process; what `python -m penstock_server.coordinator` does."""
    coordinator = Coordinator(settings)
    serve_counts(
        settings.metrics_port,
        "coordinator",
        {},
        coordinator.counters,
        coordinator.seconds,
        whose="worker",
    )

    def leave(number: int, _frame: FrameType | None) -> None:
        coordinator.leave(f"the coordinator received {signal.Signals(number).name}.")

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    try:
        coordinator.run()
    finally:
        coordinator.close()


def _bind(
    context: zmq.Context[zmq.Socket[bytes]], address: str, clock: Callable[[], float], guard: Guard
) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.MAXMSGSIZE, LARGEST_BYTES)
    router.setsockopt(zmq.SNDHWM, 100)
    router.setsockopt(zmq.LINGER, 500)
    guard.protect(router)
    deadline = clock() + BIND_PATIENCE_S
    while True:
        try:
            router.bind(address)
            return router
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or clock() > deadline:
                router.close(linger=0)
                guard.close()
                context.term()
                raise OSError(f"The coordinator cannot listen on {address}: {error}.") from error
            time.sleep(0.1)
