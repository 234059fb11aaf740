"""What a rank trained on, sample by sample: the trainer's own log of its draws, draws-RANK.bin.

Nothing of it comes from the shard's ledger: the ids are those that stood beside the fields which
the rank gathered. The trainer writes it; `penstock audit` reads it, and a replay compares it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penstock_surrogates.batch import Batch

FOLD = 100  # batches that are written at once: 5 us for one of 10 samples, alone it is 36

# One sample; 24 bytes, little-endian. The first 16 say which one it was, and when.
DRAW = np.dtype(
    [
        ("simulation", "<u8"),
        ("batch", "<u4"),  # of the training, from 1
        ("step", "<u4"),  # the first of its window
        ("inputs", "<u4"),  # CRC-32 of its parameters, float64
        ("content", "<u4"),  # CRC-32 of its fields, in the campaign's order; 0: not taken
    ]
)
IDENTITY = 16

Draws = npt.NDArray[Any]  # of DRAW


class DrawLog:
    """Of one rank; without a path nothing is written. `cut` comes before the first `add`.

    A file that cannot be written ends the log and not the training; `error` says why.
    """

    def __init__(self, path: Path | None, fields: Sequence[str] = ()) -> None:
        """fields: those of which each sample's content is summed up, in the campaign's order."""
        self._path, self._fields = path, fields
        self._file: int | None = None
        self._waiting: list[tuple[int, Tensor, Tensor, Tensor, list[int] | None]] = []
        self.error = ""

    def cut(self, batch: int) -> None:
        """Forget every draw after `batch`, and what was half written."""
        self._waiting.clear()
        if self._path is None:
            return
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, _until(read_draws(self._path), batch) * DRAW.itemsize)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self._give_up(error)

    def add(self, batch: Batch | None, number: int) -> None:
        """A batch that is about to be trained on, as number `number`; None: this rank had none."""
        if batch is None or self._file is None:
            return
        content = contents(batch, self._fields) if self._fields else None
        self._waiting.append((number, batch.simulation, batch.step, batch.parameters, content))
        if len(self._waiting) >= FOLD:
            self.flush()

    def flush(self, durable: bool = False) -> None:
        """Everything so far is in the file; durable: on the disk."""
        if self._file is None:
            return
        try:
            if self._waiting:
                _write(self._file, self._fold())
            if durable:
                os.fsync(self._file)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """May be called twice."""
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _fold(self) -> bytes:
        waiting, self._waiting = self._waiting, []
        numbers, simulations, steps, parameters, sums = zip(*waiting, strict=True)
        rows = np.zeros(sum(map(len, simulations)), DRAW)
        rows["simulation"] = torch.cat(simulations).numpy()
        rows["batch"] = np.repeat(numbers, [len(each) for each in simulations])
        rows["step"] = torch.cat(steps)[:, 0].numpy()
        rows["inputs"] = checksums(torch.cat(parameters).numpy())
        if self._fields:
            rows["content"] = np.concatenate(sums)
        return rows.tobytes()

    def _give_up(self, error: OSError) -> None:
        self.error = (
            f"The log of draws {self._path} cannot be written: {error.strerror or error}. Training "
            "goes on; the run cannot be audited to its end."
        )
        self._waiting.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None


def draw_log_path(folder: Path, rank: int) -> Path:
    """Where a rank's log is in a run's folder."""
    return folder / f"draws-{rank}.bin"


def read_draws(path: Path) -> Draws:
    """All whole records; one that was half written is left out."""
    n = path.stat().st_size // DRAW.itemsize
    return np.memmap(path, DRAW, "r", shape=(n,)) if n else np.empty(0, DRAW)


def checksums(parameters: npt.NDArray[Any]) -> list[int]:
    """The CRC-32 of each row of parameters, (b, p)."""
    return [zlib.crc32(row) for row in np.ascontiguousarray(parameters, "<f8")]


def contents(batch: Batch, fields: Sequence[str] | None = None) -> list[int]:
    """The CRC-32 of each sample's fields, as the shards take it of a segment's.

    fields: in the campaign's order, which a batch out of a data set does not have; None: the
    batch's own.
    """
    sums = [0] * len(batch)
    for name in batch.fields if fields is None else fields:
        array = np.ascontiguousarray(batch.fields[name].cpu().numpy())
        sums = [zlib.crc32(sample, so_far) for sample, so_far in zip(array, sums, strict=True)]
    return sums


def sequence_digest(draws: Draws) -> str:
    """SHA-256 of which samples were drawn when: two trainings of one sequence have the same."""
    whole = np.ascontiguousarray(draws).view("u1").reshape(-1, DRAW.itemsize)
    return hashlib.sha256(np.ascontiguousarray(whole[:, :IDENTITY]).tobytes()).hexdigest()


def joint_digest(ranks: Sequence[Draws]) -> str:
    """The same of all ranks together, in their order."""
    digests = "".join(sequence_digest(draws) for draws in ranks)
    return hashlib.sha256(digests.encode()).hexdigest()


def _until(draws: Draws, batch: int) -> int:
    """How many records there are of batches up to this one.

    What was not yet on the disk when a machine lost its power may have come back as zeros.
    """
    numbers = draws["batch"].astype(np.int64)
    wrong = (numbers > batch) | (numbers == 0)
    wrong[1:] |= numbers[1:] < numbers[:-1]
    return int(np.argmax(wrong)) if wrong.any() else len(numbers)


def _write(file: int, rows: bytes) -> None:
    done = 0
    while done < len(rows):
        done += os.write(file, rows[done:])
