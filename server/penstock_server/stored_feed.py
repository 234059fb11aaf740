"""The feed of a rank from a stored data set: epochs through PyTorch's DataLoader.

What `mode = "offline"` trains from. All counts say that production is over and everything was
admitted, so the rounds of the ranks decide as they do at the end of a stream. Which samples batch
number n has follows from the seed alone: a restarted rank goes on where the snapshot was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from penstock_server.dataset import DataSet, DataSetError, Group, gather
from penstock_server.feed import Stock
from penstock_server.patches import find_patches
from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments

Array = npt.NDArray[Any]

MOMENT_BYTES = 256 << 20  # of fields that the normalisation is counted on, spread over the set
PREFETCH = 4  # batches a worker
MOST_WORKERS = 4


@dataclass(frozen=True)
class StoredFeedSettings:
    """Where a rank finds its samples. rows: the training simulations, None for all."""

    path: str
    rank: int
    world: int
    batch_size: int
    window: int
    stride: int
    segment_steps: int
    components: dict[str, int]  # name -> components, of fields and input fields
    seed: int
    rows: list[int] | None = None
    loader_workers: int | None = None
    patches: dict[str, Any] | None = None  # PatchSettings; None: whole fields


class StoredSamples(Dataset[Batch]):
    """Windows of K steps, each inside one segment: the samples that a stream would have had."""

    def __init__(
        self, group: Group, rows: Array, window: int, stride: int, segment_steps: int
    ) -> None:
        self._group, self._window, self._stride = group, window, stride
        span = (window - 1) * stride + 1
        self.row, self.start = windows(rows, group.n_steps[rows], span, segment_steps)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, sample: int) -> Batch:
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> Batch:
        """What the DataLoader calls: a whole batch in one indexed copy a field."""
        index = np.asarray(samples)
        return gather(self._group, self.row[index], self.start[index], self._window, self._stride)


class EpochBatches(Sampler[list[int]]):
    """Without end: every epoch a permutation of its own, cut into batches of all ranks.

    What does not fill a batch is left out of the epoch, other samples in each.
    """

    def __init__(
        self, n_samples: int, batch_size: int, rank: int, world: int, seed: int, first: int
    ) -> None:
        """first: the number of the first batch, from 0."""
        self._n, self._size = n_samples, batch_size
        self._rank, self._world, self._seed, self._first = rank, world, seed, first

    def __iter__(self) -> Iterator[list[int]]:
        everyone = self._size * self._world
        per_epoch = self._n // everyone
        epoch, at = divmod(self._first, per_epoch)
        while True:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(self._n)
            for batch in range(at, per_epoch):
                begin = batch * everyone + self._rank * self._size
                yield order[begin : begin + self._size].tolist()
            epoch, at = epoch + 1, 0


class StoredFeed:
    """The `Feed` of offline training."""

    def __init__(self, settings: StoredFeedSettings) -> None:
        self._settings = settings
        data = DataSet(settings.path)
        if "train" not in data.roles:
            raise DataSetError(f"{settings.path} has no training simulations.")
        self._group = data.roles["train"]
        rows = data.rows("train") if settings.rows is None else np.array(settings.rows)
        self._rows = rows
        self._patches = find_patches(settings.patches)
        self._samples = StoredSamples(
            self._group, rows, settings.window, settings.stride, settings.segment_steps
        )
        everyone = settings.batch_size * settings.world
        if len(self._samples) < everyone:
            raise DataSetError(
                f"{settings.path} has {len(self._samples)} samples for training, fewer than one "
                f"batch of all ranks, {settings.world} x {settings.batch_size}."
            )
        self._mine = len(self._samples) // settings.world
        self._next = 0  # number of the next batch, from 0
        self._batches: Iterator[Batch] | None = None

    def stock(self, timeout_s: float) -> Stock:
        drawn = self._next * self._settings.batch_size
        return Stock(
            admitted=self._mine,
            stored=self._mine,
            unseen=max(0, self._mine - drawn),
            capacity=self._mine,
            ready=self._settings.batch_size,
            fresh=0,
            complete_simulations=len(self._rows),
            blocked=False,
            pressure=False,
            over=True,
        )

    def take(self, batch: int) -> Batch:
        if self._batches is None or batch != self._next + 1:
            self._next = batch - 1
            self._batches = iter(self._loader())
        self._next += 1
        found = next(self._batches)
        return found if self._patches is None else self._patches.cut(found, batch)

    def restore(self, batch: int) -> None:
        self._next, self._batches = batch, None

    def moments(self) -> dict[str, Moments]:
        group, own = self._group, self._rows[self._settings.rank :: self._settings.world]
        held = group.n_steps[own]
        row = np.repeat(own, held)
        step = np.concatenate([np.arange(n) for n in held])
        sample_bytes = sum(v[0, 0].nbytes for v in group.fields.values())
        every = max(1, -(-len(row) * sample_bytes // MOMENT_BYTES))
        found = {
            name: Moments.of(
                torch.from_numpy(values[row[::every], step[::every]]),
                self._settings.components[name],
            )
            for name, values in group.fields.items()
        }
        t = group.t[row, step]
        found["t"] = Moments.of(torch.from_numpy(t[np.isfinite(t)]))
        for name, values in group.inputs.items():
            some = torch.from_numpy(np.asarray(values[own]))
            found[name] = Moments.of(some, self._settings.components[name])
        return found

    def skip(self, batch: int) -> None:
        """Every rank has a part in every batch."""

    def redraw(self) -> None:
        """Nothing is drawn ahead of need."""

    def hold(self, held: bool) -> None:
        """There are no producers."""

    def drain(self) -> None:
        """There is no stream that could end."""

    def report(self) -> None:
        """Which samples a batch has follows from its number."""

    def snapshot(self, batch: int) -> None:
        """Nothing is evicted."""

    def export_ledger(self, folder: Path, batch: int) -> None:
        """The position is the number of the batch."""

    def settle(self, batch: int) -> None:
        """Everything is on a disk already."""

    def close(self) -> None:
        self._batches = None

    def _loader(self) -> DataLoader[Batch]:
        settings = self._settings
        batches = EpochBatches(
            len(self._samples),
            settings.batch_size,
            settings.rank,
            settings.world,
            settings.seed,
            self._next,
        )
        n_workers = settings.loader_workers
        if n_workers is None:
            n_workers = choose_workers(self._n_bytes(), settings.world)
        return DataLoader(
            self._samples,
            batch_sampler=batches,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=n_workers,
            prefetch_factor=PREFETCH if n_workers else None,
        )

    def _n_bytes(self) -> int:
        """Of the fields of the training simulations."""
        each: int = sum(values[0].nbytes for values in self._group.fields.values())
        return each * len(self._rows)


def choose_workers(n_bytes: int, world: int) -> int:
    """0 where the page cache can hold the set: a batch is then one copy out of memory."""
    if 2 * n_bytes < psutil.virtual_memory().available:
        return 0
    return max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // world))


def windows(rows: Array, n_steps: Array, span: int, segment_steps: int) -> tuple[Array, Array]:
    """Row and first step of every sample of so many steps, simulation by simulation."""
    at, starts = [], []
    for row, n in zip(rows, n_steps):
        for first in range(0, int(n), segment_steps):
            last = min(first + segment_steps, int(n))
            some = np.arange(first, last - span + 1)
            at.append(np.full(len(some), row))
            starts.append(some)
    if not at:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(at).astype(np.int64), np.concatenate(starts).astype(np.int64)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def open_feed(settings: dict[str, Any]) -> StoredFeed:
    """The feed factory of the rank group: settings as a plain dict."""
    return StoredFeed(StoredFeedSettings(**settings))
