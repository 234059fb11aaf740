"""A receiver without its data socket, in a thread of the test: a shard and its dispenser.

Everything that touches the shard runs in that thread, between two of its turns; `kill` ends it
there, with what it had heard and not read, as kill -9 would.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np
import zmq

from penstock.wire import FieldEntry, Header, Kind
from penstock_server.dispenser import Dispenser
from penstock_server.feed import FeedSettings
from penstock_server.ledger import Ledger
from penstock_server.plans import Plan, read_target
from penstock_server.receiver import _write_books
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import Slab, SlabSpec

WHOLE = Plan(
    {0: read_target("u", (3,), np.array([0, 1, 3, 0, 3], dtype="<i8").tobytes())}, b"whole"
)
STEPS = 10  # at most so many a simulation, so that a sample has one number


class Hearing(Dispenser):
    """Counts the messages of each kind that came from the rank."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard: Counter[bytes] = Counter()

    def _take(self, frames: list[bytes]) -> None:
        self.heard[frames[1]] += 1
        super()._take(frames)


class ReceiverThread:
    """Every step of a simulation is a segment; its values are 10 x simulation + step."""

    def __init__(self, folder: Path, policy: str, n_slots: int, threshold: int = 1) -> None:
        self._folder, self._policy, self._threshold = folder, policy, threshold
        self._address = f"ipc://{folder}/feed"
        self._incarnations = itertools.count(1)
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        spec = SlabSpec(n_slots, 1, 1, 0, {"u": ((3,), "float32")}, {}, 0, 1)
        Slab.create(folder / "slab", spec)
        self.start()

    def settings(self, batch_size: int, **more: Any) -> FeedSettings:
        folder = str(self._folder / "slab")
        values = {"patience_s": 20.0, **more}
        return FeedSettings("0", folder, self._address, batch_size, {"u": 1}, **values)

    def start(self) -> None:
        """A receiver that maps what an earlier one left."""
        slab = Slab.attach(self._folder / "slab", writable=True)
        incarnation = next(self._incarnations)
        reservoir = Reservoir(self._policy, slab.drawn, np.random.default_rng(incarnation))
        ledger = Ledger(self._folder / "ledger")
        self.shard = Shard(slab, ledger, reservoir, ["u"], max_steps=STEPS)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.dispenser = Hearing(self._context, self.shard, self._address, self._threshold)
        self._killed = False
        self._thread = Thread(target=self._serve, args=(incarnation,), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        self._killed = True
        self._thread.join()
        self._context.destroy(linger=0)

    def do(self, job: Callable[[], Any]) -> Any:
        """What the receiver's loop would do next; gives the job's result."""
        done: Future[Any] = Future()
        self._jobs.put((job, done))
        return done.result(20)

    def admit(self, simulation: int, n_steps: int) -> int:
        """Admits the first steps of a simulation, as many as there is room for."""
        return int(self.do(lambda: self._admit(simulation, n_steps)))

    def over(self) -> None:
        """Nothing more will come."""
        self.do(lambda: setattr(self.shard, "over", True))

    def await_turn(self) -> None:
        """Returns when its books are those of a whole turn."""
        for _ in range(2):
            self.do(lambda: None)

    def halt(self) -> tuple[Event, Event]:
        """Between these two events it reads nothing; after them it is dead, but for `kill`."""
        entered, leave = Event(), Event()

        def stand() -> None:
            entered.set()
            leave.wait(20)
            self._killed = True

        self._jobs.put((stand, Future()))
        return entered, leave

    def _serve(self, incarnation: int) -> None:
        while not self._killed:
            self.dispenser.socket.poll(1)
            self.dispenser.turn()
            while not self._killed:
                try:
                    job, done = self._jobs.get_nowait()
                except Empty:
                    break
                try:
                    done.set_result(job())
                except Exception as error:
                    done.set_exception(error)
            _write_books(self.shard, self.shard.over, incarnation)

    def _admit(self, simulation: int, n_steps: int) -> int:
        shard, header = self.shard, Header(Kind.OPEN, 0, simulation, 1, geometry=1)
        stream = shard.open(header, b"", b"peer", WHOLE)
        for step in range(n_steps):
            shard.credit.grant()
            if stream.granted <= step:
                n_steps = step
                break
            entries = (FieldEntry(0, 1, 12),)
            part = Header(Kind.PART, 0, simulation, 1, step, t=0.5 * step, fields=entries)
            reception = shard.receive(part)
            reception.arrays[0][:] = STEPS * simulation + step
            shard.receive_done(reception)
        if n_steps:
            shard.end(stream, 0, n_steps)
        else:
            shard.withdraw(simulation)
        return n_steps
