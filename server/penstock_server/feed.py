"""What a rank sees of its shard: counts, batches gathered from the slab, and what became safe.

`Feed` is what the trainer needs; `ShardFeed` is the real one. The receiver chooses samples ahead
of time and sends their ids; the rank gathers them in one indexed copy a field, and checks by the
slots' generations that nothing was overwritten meanwhile.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import zmq

from penstock_server.dispenser import BATCH, TAKEN
from penstock_server.slab import BOOKS, COMMITTED, Slab, SlabError
from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments

MOMENT_SLOTS = 256  # gathered at a time while moments are counted
RETRY_S = 1.0


@dataclass(frozen=True)
class Stock:
    """Counts of one shard, all in samples unless said otherwise."""

    admitted: int
    stored: int
    unseen: int  # never drawn, those of batches under way included
    capacity: int
    ready: int  # samples in the next batch that can be taken now
    fresh: int  # of these, never drawn
    complete_simulations: int
    blocked: bool  # every producer of this shard waits for credit
    pressure: bool  # producers wait and a snapshot would free slots
    over: bool  # production is over and everything has been received


class Feed(Protocol):
    """What the trainer needs of a shard."""

    def stock(self, timeout_s: float) -> Stock:
        """The newest counts; waits up to timeout_s for a batch that is ready."""

    def take(self, batch: int) -> Batch:
        """Gathers the next batch and marks its samples as drawn by batch number `batch`, from 1."""

    def skip(self, batch: int) -> None:
        """This rank has no part in batch number `batch`."""

    def redraw(self) -> None:
        """Exchange the batches ahead for ones of unseen samples, as far as there are any."""

    def hold(self, held: bool) -> None:
        """Whether producers get no more credit, because the trainer is behind."""

    def drain(self) -> None:
        """From now on only unseen samples, each once."""

    def snapshot(self, batch: int) -> None:
        """A snapshot stands that covers all draws up to `batch`."""

    def export_ledger(self, folder: Path, batch: int) -> None:
        """Writes this shard's ledger as of the snapshot at `batch` into the folder."""

    def settle(self, batch: int) -> None:
        """The checkpoint at `batch` is durable, with the ledger that was exported for it."""

    def restore(self, batch: int) -> None:
        """Forget all draws after `batch`."""

    def moments(self) -> dict[str, Moments]:
        """Of the fields and input fields in store, and of their times under the key "t"."""

    def close(self) -> None:
        """May be called twice."""


@dataclass(frozen=True)
class FeedSettings:
    """Where a rank finds its shard."""

    shard: str
    folder: str
    address: str
    batch_size: int
    window: int
    components: dict[str, int]  # name -> components, of fields and input fields
    depth: int = 4
    patience_s: float = 120.0
    dtype: str = "float64"  # of parameters and t


class ShardFeed:
    """The feed of one rank from the shard beside it."""

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings
        self._slab = _attach(Path(settings.folder), settings.patience_s)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(settings.address)
        self._epoch = time.time_ns() >> 10  # later than that of any rank before this one
        self._request = 0
        self._unseen_only = self._held = False
        self._ahead: deque[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]] = deque()
        self._incarnation = 0
        spec = self._slab.spec
        length = spec.segment_steps
        self._flat = {  # (slots * steps, *shape), so that one index selects a step
            name: torch.from_numpy(array.reshape(-1, *array.shape[2:]))
            for name, array in self._slab.fields.items()
        }
        self._inputs = {n: torch.from_numpy(a) for n, a in self._slab.inputs.items()}
        self._offsets = np.arange(settings.window)
        self._length = length
        self._greet(self._now("incarnation"))

    def stock(self, timeout_s: float) -> Stock:
        self._read()
        if not self._ahead and timeout_s > 0:
            self._socket.poll(int(1000 * timeout_s))
            self._read()
        books = dict(zip(BOOKS, (int(n) for n in self._slab.books)))
        if books["incarnation"] != self._incarnation:
            self._greet(books["incarnation"])
        ready = fresh = 0
        if self._ahead:
            samples = self._ahead[0][1]
            ready, fresh = len(samples), int(np.count_nonzero(self._first_draws(samples) == 0))
        return Stock(
            admitted=books["admitted"],
            stored=books["stored"],
            unseen=books["unseen"],
            capacity=books["capacity"],
            ready=ready,
            fresh=fresh,
            complete_simulations=books["complete_simulations"],
            blocked=bool(books["blocked"]),
            pressure=bool(books["pressure"]),
            over=bool(books["over"]),
        )

    def take(self, batch: int) -> Batch:
        deadline = time.monotonic() + self._settings.patience_s
        while True:
            while not self._ahead:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"Shard {self._settings.shard} announced a batch and sent none within "
                        f"{self._settings.patience_s:.0f} s."
                    )
                self.stock(0.1)
            number, samples, generations = self._ahead.popleft()
            gathered = self._gather(samples)
            slots = samples // self._slab.spec.windows
            intact = np.array_equal(self._slab.descriptor["generation"][slots], generations)
            head = TAKEN.pack(self._epoch, number, batch)
            frames = [head, samples.tobytes(), generations.tobytes()]
            self._socket.send_multipart([b"T" if intact else b"C", *frames])
            if intact:
                return gathered

    def skip(self, batch: int) -> None:
        """The receiver counts nothing by batches of the others."""

    def redraw(self) -> None:
        if not self._ahead or not self._now("unseen"):
            return
        if np.any(self._first_draws(self._ahead[0][1]) != 0):
            self._restart("redraw")

    def hold(self, held: bool) -> None:
        self._held = held
        self._ask("hold", held=held)

    def drain(self) -> None:
        self._unseen_only = True
        self._restart("attach")

    def snapshot(self, batch: int) -> None:
        self._ask("snapshot", batch=batch)

    def export_ledger(self, folder: Path, batch: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"ledger-{self._settings.shard}"
        self._ask("export", path=str(path), batch=batch)

    def settle(self, batch: int) -> None:
        self._ask("settle", batch=batch)

    def restore(self, batch: int) -> None:
        self._restart("attach")
        self._ask("restore", batch=batch)
        self._restart("attach")

    def moments(self) -> dict[str, Moments]:
        found: dict[str, Moments] = {}
        slots = np.flatnonzero(self._slab.descriptor["state"] == COMMITTED)
        for at in range(0, len(slots), MOMENT_SLOTS):
            some = slots[at : at + MOMENT_SLOTS]
            held = self._slab.descriptor["n_steps"][some]
            index = torch.from_numpy(
                np.concatenate([s * self._length + np.arange(n) for s, n in zip(some, held)])
            )
            for name, flat in self._flat.items():
                values = Moments.of(flat.index_select(0, index), self._settings.components[name])
                found[name] = found[name] + values if name in found else values
            t = torch.from_numpy(self._slab.t.reshape(-1)[index.numpy()])
            times = Moments.of(t[torch.isfinite(t)])
            found["t"] = found["t"] + times if "t" in found else times
        rows = torch.from_numpy(np.unique(self._slab.descriptor["row"][slots]).astype(np.int64))
        for name, array in self._inputs.items():
            found[name] = Moments.of(array.index_select(0, rows), self._settings.components[name])
        return found

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.close()
            self._context.term()

    # -- inner -----------------------------------------------------------------------------------

    def _gather(self, samples: npt.NDArray[Any]) -> Batch:
        slots, starts = np.divmod(samples, self._slab.spec.windows)
        offsets = starts[:, None] + self._offsets  # (b, k) inside the segment
        index = torch.from_numpy((slots[:, None] * self._length + offsets).reshape(-1))
        shape = (len(samples), self._settings.window)
        descriptor = self._slab.descriptor
        step = descriptor["segment"][slots].astype(np.int64)[:, None] * self._length + offsets
        rows = torch.from_numpy(descriptor["row"][slots].astype(np.int64))
        n_parameters = self._slab.spec.n_parameters
        return Batch(
            parameters=torch.from_numpy(self._slab.parameters[slots, :n_parameters]),
            t=torch.from_numpy(self._slab.t.reshape(-1)[index.numpy()].reshape(shape)),
            fields={
                name: flat.index_select(0, index).reshape(*shape, *flat.shape[1:])
                for name, flat in self._flat.items()
            },
            simulation=torch.from_numpy(descriptor["simulation"][slots].astype(np.int64)),
            step=torch.from_numpy(step),
            inputs={name: array.index_select(0, rows) for name, array in self._inputs.items()},
        )

    def _first_draws(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        drawn: npt.NDArray[Any] = self._slab.drawn.reshape(-1)[samples]
        return drawn

    def _read(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take_batch(frames)

    def _take_batch(self, frames: list[bytes]) -> None:
        if frames[0] != b"B":
            return
        epoch, number = BATCH.unpack(frames[1])
        if epoch == self._epoch:
            samples = np.frombuffer(frames[2], dtype=np.int64)
            self._ahead.append((number, samples, np.frombuffer(frames[3], dtype=np.uint32)))

    def _restart(self, what: str) -> None:
        """A new epoch: batches under way are void, and the receiver puts their samples back."""
        self._epoch += 1
        self._ahead.clear()
        self._ask(what)

    def _greet(self, incarnation: int) -> None:
        """A receiver that was started (again) knows no rank; what it had handed out is void."""
        self._restart("attach")
        self._incarnation = incarnation

    def _now(self, book: str) -> int:
        return int(self._slab.books[BOOKS.index(book)])

    def _ask(self, what: str, timeout_s: float | None = None, **body: Any) -> None:
        """A request to the receiver, repeated until it is answered; all are idempotent."""
        deadline = time.monotonic() + (timeout_s or self._settings.patience_s)
        self._request += 1
        request = {
            "request": self._request, "what": what, "epoch": self._epoch,
            "depth": self._settings.depth, "batch_size": self._settings.batch_size,
            "unseen_only": self._unseen_only, "held": self._held, **body,
        }  # fmt: skip
        frame = json.dumps(request).encode()
        while True:
            self._socket.send_multipart([b"J", frame])
            again = time.monotonic() + RETRY_S
            while time.monotonic() < again:
                if not self._socket.poll(int(1000 * max(0.0, again - time.monotonic()))):
                    break
                frames = self._socket.recv_multipart()
                if frames[0] != b"J":
                    self._take_batch(frames)
                    continue
                answer = json.loads(frames[1])
                if answer["request"] == self._request:
                    if "error" in answer:
                        raise RuntimeError(f"Shard {self._settings.shard}: {answer['error']}")
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Shard {self._settings.shard} did not answer {what!r} within "
                    f"{timeout_s or self._settings.patience_s:.0f} s; its receiver is gone."
                )


def _attach(folder: Path, patience_s: float) -> Slab:
    """Maps the slab as soon as its receiver has made it; writable only because torch wants that."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Slab.attach(folder, writable=True)
        except (SlabError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def open_feed(settings: dict[str, Any]) -> ShardFeed:
    """The feed factory of the rank group: settings as a plain dict."""
    return ShardFeed(FeedSettings(**settings))
