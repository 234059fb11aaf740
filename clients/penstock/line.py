"""The steps of one simulation on their way to one shard: alone, or several in one message.

What a message costs, ZeroMQ's thread and the receiver's, is many times the copy of a small step. So
steps that follow each other quickly share one, a Bunch: never more than the campaign's
stream.bunch_bytes, never older than OLD_S when the solver calls in. There is no thread to send them
later: a solver that was quick and then computes for long keeps back its last few until its next
call, and sends step by step from then on, until such waits are less than LATE of its time. What it
waited for room or for a processor is not its doing and does not count. A large step that the solver
wrote into the stream's memory goes alone, as in a bunch it would have to be copied. Owned by the
simulation.

After a solver's step the processor's caches hold nothing of this, and a line of Python costs ten
times what it does in a loop. So most steps do one thing only: they `join` the bunch before them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from penstock import wire
from penstock.buffers import Buffers
from penstock.processes import kept_from_running_s
from penstock.sender import Sender
from penstock.shipment import Shipment
from penstock.spans import Spans
from penstock.wire import FieldEntry, Header, Kind

QUICK_S = 0.01  # from one call to the next, of a solver for which it is worth it
OLD_S = 0.1
ALONE_BYTES = 1 << 18  # from here on a copy costs more than a message
LATE = 0.05  # share of the time for which steps may be kept back by a solver that computes


class MakeHeader(Protocol):
    """A header of the simulation with what is particular to a message."""

    def __call__(
        self, kind: Kind, entries: tuple[FieldEntry, ...] = ..., step: int = ..., t: float = ...
    ) -> Header: ...


class Line:
    """The way to one sender; `put` a step at a time, `flush` before anything else is posted."""

    def __init__(
        self,
        sender: Sender,
        make_header: MakeHeader,
        buffers: Buffers,
        spans: Spans,
        bunch_bytes: int,
    ) -> None:
        self.sender, self._make_header = sender, make_header
        self._buffers, self._spans, self._bunch_bytes = buffers, spans, bunch_bytes
        self.bunch: Bunch | None = None  # has room for at least one more step
        self._put_s = -math.inf
        self._began_s = time.monotonic()
        self._late_s = 0.0  # for which steps were kept back while the solver did not call in

    def put(
        self,
        shipment: Shipment,
        values: Sequence[np.ndarray],
        step: int,
        t: float,
        now_s: float,
    ) -> None:
        """Takes the values that `shipment.check` let through, as a copy or where they lie in a
        span; after `glance`."""
        bunch = self.bunch
        late = self._late_s > LATE * (now_s - self._began_s)
        put_s = self._put_s if bunch is None else bunch.put_s
        quick = now_s - put_s < QUICK_S and not late
        most = shipment.most(self._bunch_bytes) if quick and bunch is None else 0
        large = shipment.n_bytes >= ALONE_BYTES
        if bunch is None and (most < 2 or (large and shipment.lies_in(self._spans, values))):
            payloads = shipment.payloads(values, self._spans)
            header = self._make_header(Kind.PART, shipment.table, step, t)
            self.sender.post(header, payloads, give_back=self._spans.give_back)
        else:
            if bunch is None:
                bunch = self.bunch = Bunch(shipment, self._buffers, most, now_s)
            bunch.add(values, step, t, now_s)
            if bunch.full or not quick:
                self.flush()
        self._put_s = time.monotonic()

    def glance(self, now_s: float, away_s: float) -> None:
        """The solver calls in, after away_s. Posts what is too old, and looks for answers.

        How long it was away counts if there were steps here.
        """
        bunch = self.bunch
        if bunch is not None:
            if away_s > OLD_S:
                self._late_s += max(0.0, away_s - (kept_from_running_s() - bunch.kept_s))
            if now_s - bunch.began_s > OLD_S:
                self.flush()
        self.sender.glance(now_s)

    def waited(self, seconds: float) -> None:
        """The solver was kept for so long in this call, with nothing kept back."""
        self._put_s += seconds
        self._began_s += seconds

    def drop(self) -> None:
        """Nobody wants what is kept back."""
        bunch, self.bunch = self.bunch, None
        for array in bunch.memory() if bunch is not None else ():
            self._buffers.give(array)

    def flush(self) -> None:
        """Posts what is kept back."""
        bunch, self.bunch = self.bunch, None
        if bunch is not None:
            header = self._make_header(Kind.BUNCH, bunch.table, bunch.n)
            memory, self._put_s = bunch.memory(), bunch.put_s
            payloads = [array if len(array) == bunch.n else array[: bunch.n] for array in memory]
            self.sender.post(header, payloads, memory, self._buffers.give)


class Bunch:
    """Several steps side by side in memory, (steps, *sent shape) a field."""

    def __init__(self, shipment: Shipment, buffers: Buffers, most: int, began_s: float) -> None:
        self.table, self.began_s, self.put_s = shipment.table, began_s, began_s
        self.kept_s = kept_from_running_s()
        self._shipment, self._most = shipment, most
        self._rows: list[tuple[int, int, float]] = []
        self._steps = buffers.take((most,), wire.STEP)
        self._blocks = shipment.blocks(buffers, most)
        self._lanes: list[tuple[str, tuple[int, ...], Any, np.dtype, ndarray]] = []

    @property
    def n(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        return len(self._rows) == self._most

    def add(self, values: Sequence[np.ndarray], step: int, t: float, now_s: float) -> None:
        """Takes a copy of what `shipment.check` let through."""
        self._lanes = [
            (*usual, given.dtype, block)
            for usual, given, block in zip(self._shipment.usual, values, self._blocks)
        ]
        self._shipment.pack(values, self._blocks, len(self._rows))
        self._rows.append((step, 0, t))
        self.put_s = now_s

    def join(self, given: Mapping[str, Any], step: int, t: float, now_s: float) -> bool:
        """As `check` and `add`, for the usual step; False where it takes more than that.

        The usual one follows quickly, leaves room for another, and comes as arrays of its rank
        with the dtypes of the one before.
        """
        rows, lanes = self._rows, self._lanes
        at = len(rows)
        if at + 1 >= self._most or now_s - self.put_s > QUICK_S or len(given) != len(lanes):
            return False
        for name, shape, take, dtype, block in lanes:
            values = given.get(name)
            if type(values) is not ndarray or values.dtype is not dtype or values.shape != shape:
                return False
            block[at] = values if take is None else values[take]
        rows.append((step, 0, t))
        self.put_s = now_s
        return True

    def memory(self) -> list[np.ndarray]:
        """Its arrays, as far as they are filled; nothing joins it any more."""
        self._most = 0
        self._steps[: len(self._rows)] = self._rows
        return [self._steps, *self._blocks]
