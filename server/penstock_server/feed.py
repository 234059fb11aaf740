"""What a rank sees of its shard: counts, batches gathered from the slab, and what became safe.

`Feed` is what the trainer needs; `ShardFeed` is the real one. The receiver chooses samples ahead
of time and sends their ids, several batches at once (`feed_line.py`); the rank gathers each batch
in one indexed copy a field (`gathering.py`) and says in groups what it has drawn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from penstock_server.devices import choose_device
from penstock_server.feed_line import FeedLine
from penstock_server.feed_settings import FeedSettings
from penstock_server.gathering import Gatherer
from penstock_server.patches import find_patches
from penstock_server.slab import BOOKS, COMMITTED, INCARNATION, Slab, SlabError
from penstock_server.work_ahead import WorkAhead
from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments

__all__ = ["Feed", "FeedSettings", "ShardFeed", "Stock", "open_feed"]

MOMENT_SLOTS = 256  # gathered at a time while moments are counted


@dataclass(slots=True)  # a frozen one takes twice as long to make, and one is made for each batch
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

    def report(self) -> None:
        """Returns when the shard has noted all draws so far: a snapshot may be written of them."""

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


class ShardFeed:
    """The feed of one rank from the shard beside it."""

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings
        self._slab = _attach(Path(settings.folder), settings.patience_s)
        device = choose_device(settings.device, settings.rank)
        self._gatherer = Gatherer(self._slab, device, find_patches(settings.patches))
        self._line = FeedLine(settings, self._slab, self._gatherer)
        self._worker: WorkAhead | None = None
        if settings.work_ahead:
            self._worker = WorkAhead(self._gatherer, self._line.turn, settings.batch_size)
        self._incarnation = 0
        self._greet(int(self._slab.books[INCARNATION]))

    def stock(self, timeout_s: float) -> Stock:
        line = self._line
        if self._worker is not None:
            self._worker.check()
        if line.due:
            if self._worker is not None and line.ahead:
                self._worker.turn()
            else:
                line.turn()
        if not line.ahead and timeout_s > 0:
            line.wait(timeout_s)
        books = self._slab.books.tolist()
        if books[INCARNATION] != self._incarnation:
            self._greet(books[INCARNATION])
            books = self._slab.books.tolist()  # with what it was only told now
        _, admitted, stored, unseen, capacity, complete, blocked, pressure, over, _, noted = books
        ready = fresh = 0
        if line.ahead:
            ready, fresh = len(line.ahead[0].samples), line.ahead[0].n_first
        return Stock(
            admitted=admitted,
            stored=stored,
            unseen=max(0, unseen - line.reports.unnoted_first(noted)),
            capacity=capacity,
            ready=ready,
            fresh=fresh,
            complete_simulations=complete,
            blocked=bool(blocked),
            pressure=bool(pressure),
            over=bool(over),
        )

    def take(self, batch: int) -> Batch:
        line, worker = self._line, self._worker
        while True:
            if not line.ahead:
                self._await_batch()
            promise = line.ahead.popleft()
            gathered = (worker or self._gatherer).gather(promise, batch)
            if gathered is None:
                line.cancel(promise)
                continue
            line.reports.add(promise, batch)
            if worker is not None and line.ahead:
                worker.prepare(line.ahead, batch + 1)
            return gathered

    def skip(self, batch: int) -> None:
        """The receiver counts nothing by batches of the others."""

    def redraw(self) -> None:
        ahead = self._line.ahead
        if ahead and self._now("unseen") and ahead[0].n_first < len(ahead[0].samples):
            self._line.restart("redraw")

    def hold(self, held: bool) -> None:
        self._line.held = held
        self._line.ask("hold", held=held)

    def drain(self) -> None:
        self._line.unseen_only = True
        self._line.restart("attach")

    def report(self) -> None:
        self._line.settle()

    def snapshot(self, batch: int) -> None:
        self._line.ask("snapshot", batch=batch)

    def export_ledger(self, folder: Path, batch: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"ledger-{self._settings.shard}"
        self._line.ask("export", path=str(path), batch=batch)

    def settle(self, batch: int) -> None:
        self._line.ask("settle", batch=batch)

    def restore(self, batch: int) -> None:
        self._line.restore(batch)

    def moments(self) -> dict[str, Moments]:
        found: dict[str, Moments] = {}
        length = self._slab.spec.segment_steps
        slots = np.flatnonzero(self._slab.descriptor["state"] == COMMITTED)
        for at in range(0, len(slots), MOMENT_SLOTS):
            some = slots[at : at + MOMENT_SLOTS]
            held = self._slab.descriptor["n_steps"][some]
            index = torch.from_numpy(
                np.concatenate([s * length + np.arange(n) for s, n in zip(some, held)])
            )
            for name, flat in self._gatherer.fields.items():
                values = Moments.of(flat.index_select(0, index), self._settings.components[name])
                found[name] = found[name] + values if name in found else values
            t = torch.from_numpy(self._slab.t.reshape(-1)[index.numpy()])
            times = Moments.of(t[torch.isfinite(t)])
            found["t"] = found["t"] + times if "t" in found else times
        rows = torch.from_numpy(np.unique(self._slab.descriptor["row"][slots]).astype(np.int64))
        for name, array in self._gatherer.inputs.items():
            found[name] = Moments.of(array.index_select(0, rows), self._settings.components[name])
        return found

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._gatherer.close()
        self._line.close()

    # -- inner -----------------------------------------------------------------------------------

    def _await_batch(self) -> None:
        deadline = time.monotonic() + self._settings.patience_s
        while not self._line.ahead:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Shard {self._settings.shard} announced a batch and sent none within "
                    f"{self._settings.patience_s:.0f} s."
                )
            self.stock(0.1)

    def _greet(self, incarnation: int) -> None:
        self._line.greet()
        self._incarnation = incarnation

    def _now(self, book: str) -> int:
        return int(self._slab.books[BOOKS.index(book)])


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
