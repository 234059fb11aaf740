"""What a receiver's dispenser and its rank say of batches, both ways; binary, as it is hot.

`B`, to the rank: one batch that it may gather, or several of the same size.
`T`, to the receiver: batches that were taken, several at a time. `C`: one that was not, because
a slot of it was given to another segment before. All else is JSON, `J`.

A message wakes a thread of ZeroMQ on either side, 80 to 190 us on two busy cores: one for every
batch would cost as much as the batch itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Generations = npt.NDArray[np.uint32]

_GROUP = struct.Struct("<QQQQ")  # epoch, number of the first batch, samples of a batch, of all
_DRAWS = struct.Struct("<QQQQ")  # the report, the one before it, batches, samples of all
_DRAW = struct.Struct("<QQQQ")  # epoch, number within it, batch of the training run, samples
_CANCELLED = struct.Struct("<QQ")  # epoch, number within it


class Group(NamedTuple):
    """Batches with the numbers `first`, `first` + 1, .. of an epoch."""

    epoch: int
    first: int
    size: int  # samples of each batch
    samples: Ids
    generations: Generations  # of each sample's slot
    n_first: Sequence[int]  # of each batch, the samples that were never promised before


class Draw(NamedTuple):
    """A promised batch, taken as batch number `batch` of the training run."""

    epoch: int
    number: int
    batch: int
    samples: Ids
    generations: Generations


class Report(NamedTuple):
    """Draws that a rank tells of, in the order in which they were made."""

    number: int
    after: int  # the report before it, if that wasn't noted yet; else 0
    draws: list[Draw]


def pack_group(group: Group) -> list[bytes]:
    """The frames of a `B`."""
    head = _GROUP.pack(group.epoch, group.first, group.size, len(group.samples))
    n_first = np.array(group.n_first, dtype=np.int64)
    parts = [each.tobytes() for each in (group.samples, n_first, group.generations)]
    return [b"B", b"".join((head, *parts))]


def unpack_group(frame: bytes) -> Group:
    """Of the frame after the `B`."""
    epoch, first, size, n = _GROUP.unpack_from(frame)
    n_batches = n // size
    at = _GROUP.size + 8 * n
    return Group(
        epoch, first, size,
        np.frombuffer(frame, np.int64, n, _GROUP.size),
        np.frombuffer(frame, np.uint32, n, at + 8 * n_batches),
        np.frombuffer(frame, np.int64, n_batches, at).tolist(),
    )  # fmt: skip


def pack_report(report: Report) -> list[bytes]:
    """The frames of a `T`."""
    draws = report.draws
    heads = [_DRAW.pack(d.epoch, d.number, d.batch, len(d.samples)) for d in draws]
    head = _DRAWS.pack(report.number, report.after, len(draws), sum(len(d.samples) for d in draws))
    samples = [d.samples.tobytes() for d in draws]
    generations = [d.generations.tobytes() for d in draws]
    return [b"T", b"".join((head, *heads, *samples, *generations))]


def unpack_report(frame: bytes) -> Report:
    """Of the frame after the `T`."""
    number, after, n_draws, n_samples = _DRAWS.unpack_from(frame)
    at = _DRAWS.size + n_draws * _DRAW.size
    samples = np.frombuffer(frame, np.int64, n_samples, at)
    generations = np.frombuffer(frame, np.uint32, n_samples, at + 8 * n_samples)
    draws, at = [], 0
    for i in range(n_draws):
        epoch, within, batch, n = _DRAW.unpack_from(frame, _DRAWS.size + i * _DRAW.size)
        draws.append(Draw(epoch, within, batch, samples[at : at + n], generations[at : at + n]))
        at += n
    return Report(number, after, draws)


def pack_cancelled(epoch: int, number: int) -> list[bytes]:
    """The frames of a `C`."""
    return [b"C", _CANCELLED.pack(epoch, number)]


def unpack_cancelled(frame: bytes) -> tuple[int, int]:
    """Epoch and number, of the frame after the `C`."""
    epoch, number = _CANCELLED.unpack(frame)
    return epoch, number
