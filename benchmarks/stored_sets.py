"""The stored data sets of online_vs_disk.py, how they are read, and how little of them is cached.

    npz    one file a simulation with all its steps in one array, as SC'23 stored them; a sample
           is np.load and the step taken out (numpy can neither map nor skip within an npz)
    hdf5   one file, a chunk a step, without filters and without HDF5's own cache
    npy    one array, mapped

Of hdf5 and npy the ten places of a batch are asked for at once before the first is read.

The page cache: a set is written, synced and dropped. Then its first part, as large as the
reservoir, is read, and stays; of everything else the pages are dropped as soon as a sample has been
copied out. That is better for the reader than a cache of that size which keeps what was used last:
in shuffled epochs such a one drops nearly every sample before its turn comes again. What the
workers really got from the disk is counted (/proc/PID/io).
"""

from __future__ import annotations

import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

PARAMETERS = 5
PIECE = 1 << 20


@dataclass(frozen=True)
class Size:
    """values: of float32 in a step, which is a sample."""

    simulations: int
    steps: int
    values: int

    @property
    def n_samples(self) -> int:
        return self.simulations * self.steps

    @property
    def sample_bytes(self) -> int:
        return 4 * self.values

    @property
    def n_bytes(self) -> int:
        return self.n_samples * self.sample_bytes

    def simulation(self, number: int) -> np.ndarray:
        """(steps, values); drawn anew, since nothing is kept."""
        rng = np.random.default_rng(number)
        return rng.random((self.steps, self.values), dtype="f4")


class Sample(NamedTuple):
    """One, or a batch of them."""

    x: torch.Tensor  # (6,): parameters and t
    fields: torch.Tensor  # (values,)
    number: int | torch.Tensor


class Stored(Dataset[Sample], ABC):
    """Samples by number. kept: so many of the first simulations stay in the page cache."""

    def __init__(self, folder: Path, size: Size, kept: int) -> None:
        self.folder, self.size, self.kept = folder, size, kept
        self._parameters = torch.rand(
            size.simulations, PARAMETERS, generator=torch.Generator().manual_seed(0)
        )

    def make(self) -> None:
        """Writes the set; returns when it is on the disk."""
        self.write()
        for path in self.folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    @abstractmethod
    def write(self) -> None:
        """All simulations, into the folder."""

    @abstractmethod
    def __getitems__(self, samples: Sequence[int]) -> list[Sample]:
        """What the DataLoader calls for a batch."""

    @abstractmethod
    def keep(self) -> None:
        """Nothing is in the page cache but the first `kept` simulations."""

    @property
    @abstractmethod
    def read_bytes(self) -> int:
        """That a sample needs when nothing of it is cached."""

    def collate(self, samples: list[Sample]) -> Sample:
        batch: Sample = default_collate(samples)
        return batch

    def sample(self, number: int, fields: torch.Tensor) -> Sample:
        simulation, step = divmod(number, self.size.steps)
        t = torch.tensor([step / self.size.steps])
        return Sample(torch.cat([self._parameters[simulation], t]), fields, number)

    def is_kept(self, number: int) -> bool:
        return number < self.kept * self.size.steps


class Npz(Stored):
    def write(self) -> None:
        for number in range(self.size.simulations):
            np.savez(self._path(number), u=self.size.simulation(number))

    def keep(self) -> None:
        for number in range(self.size.simulations):
            _drop(self._path(number))
            if number < self.kept:
                self._path(number).read_bytes()

    @property
    def read_bytes(self) -> int:
        return self.size.steps * self.size.sample_bytes

    def __getitem__(self, number: int) -> Sample:
        simulation, step = divmod(number, self.size.steps)
        path = self._path(simulation)
        with np.load(path) as stored:
            fields = torch.from_numpy(stored["u"][step].copy())
        if not self.is_kept(number):
            _drop(path)
        return self.sample(number, fields)

    def __getitems__(self, samples: Sequence[int]) -> list[Sample]:
        return [self[number] for number in samples]

    def _path(self, simulation: int) -> Path:
        return self.folder / f"{simulation}.npz"


class OneFile(Stored):
    """All samples in one file, each in one piece."""

    name: str

    def __init__(self, folder: Path, size: Size, kept: int) -> None:
        super().__init__(folder, size, kept)
        self.path = folder / self.name
        self._file = -1
        self._offsets: list[int] = []

    def make(self) -> None:
        super().make()
        self._offsets = self.offsets()

    def open(self) -> None:
        """In the worker; may be called twice."""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY)

    @abstractmethod
    def offsets(self) -> list[int]:
        """Where each sample begins in the file, once that is written."""

    @property
    def read_bytes(self) -> int:
        return self.size.sample_bytes

    def keep(self) -> None:
        """In pieces and marked as random: read otherwise, the kernel would mark pages at which it
        is to read ahead, and whoever came past them later would read megabytes that nobody wants.
        """
        end = self._offsets[self.kept * self.size.steps] if self.kept else 0
        _drop(self.path)
        with self.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in range(0, end, PIECE):
                os.pread(file.fileno(), min(PIECE, end - at), at)

    def want(self, samples: Sequence[int]) -> None:
        """All at once, so that the disk has more than one to do."""
        for number in samples:
            begin, length = self.span(number)
            os.posix_fadvise(self._file, begin, length, os.POSIX_FADV_WILLNEED)

    def let_go(self, samples: Sequence[int]) -> None:
        for number in samples:
            if not self.is_kept(number):
                os.posix_fadvise(self._file, *self.span(number), os.POSIX_FADV_DONTNEED)

    def span(self, number: int) -> tuple[int, int]:
        """Whole pages: what is dropped must not leave its edges behind."""
        begin = self._offsets[number] // mmap.PAGESIZE * mmap.PAGESIZE
        end = self._offsets[number] + self.size.sample_bytes
        return begin, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE - begin


class Hdf5(OneFile):
    name = "data.h5"

    def write(self) -> None:
        size = self.size
        with h5py.File(self.path, "w", libver="latest") as file:
            shape = (size.n_samples, size.values)
            data = file.create_dataset("u", shape, "f4", chunks=(1, size.values))
            for number in range(size.simulations):
                data[number * size.steps : (number + 1) * size.steps] = size.simulation(number)

    def offsets(self) -> list[int]:
        found = [0] * self.size.n_samples

        def note(chunk: h5py.h5d.StoreInfo) -> None:
            found[chunk.chunk_offset[0]] = chunk.byte_offset

        with h5py.File(self.path) as file:
            file["u"].id.chunk_iter(note)
        return found

    def open(self) -> None:
        if self._file < 0:
            super().open()
            self._data = h5py.File(self.path, rdcc_nbytes=0)["u"]

    def __getitems__(self, samples: Sequence[int]) -> list[Sample]:
        self.open()
        self.want(samples)
        found = []
        for number in samples:
            fields = torch.empty(self.size.values)
            self._data.read_direct(fields.numpy(), np.s_[number])
            found.append(self.sample(number, fields))
        self.let_go(samples)
        return found


class Npy(OneFile):
    name = "data.npy"

    def write(self) -> None:
        size = self.size
        shape = (size.n_samples, size.values)
        data = np.lib.format.open_memmap(self.path, mode="w+", dtype="f4", shape=shape)
        for number in range(size.simulations):
            data[number * size.steps : (number + 1) * size.steps] = size.simulation(number)
        data.flush()

    def offsets(self) -> list[int]:
        first = np.load(self.path, mmap_mode="r").offset
        return [first + number * self.size.sample_bytes for number in range(self.size.n_samples)]

    def open(self) -> None:
        if self._file < 0:
            super().open()
            self._memory = mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)
            self._memory.madvise(mmap.MADV_RANDOM)  # what is wanted was asked for before
            self._data = torch.frombuffer(
                self._memory, dtype=torch.float32, offset=self._offsets[0]
            ).reshape(self.size.n_samples, self.size.values)

    def __getitems__(self, samples: Sequence[int]) -> list[Sample]:
        self.open()
        self.want(samples)
        return [self.sample(number, self._data[number]) for number in samples]

    def collate(self, samples: list[Sample]) -> Sample:
        batch = super().collate(samples)  # the one copy, from the mapped file
        numbers = [int(sample.number) for sample in samples]
        for number in numbers:  # a page that is mapped cannot be dropped
            begin, length = self.span(number)
            length = min(length, len(self._memory) - begin)
            self._memory.madvise(mmap.MADV_DONTNEED, begin, length)
        self.let_go(numbers)
        return batch


FORMATS: dict[str, type[Stored]] = {"npz": Npz, "hdf5": Hdf5, "npy": Npy}


def _drop(path: Path) -> None:
    """Out of the page cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
