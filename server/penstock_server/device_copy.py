"""Samples out of a slab onto a GPU, beside what it computes: the copies have a stream of their own.

A large sample goes there straight out of the slab, which is page-locked for that: no processor
touches it. A copy of its own costs a small one more than its bytes, so small ones are gathered into
page-locked memory and go together. A gatherer uses it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from penstock_surrogates.batch import Batch

OWN_COPY_BYTES = 1 << 18  # of a step of one field; gathering it takes as long as to launch a copy

logger = logging.getLogger(__name__)


class DeviceCopy:
    """Of one rank; what `select` and `move` give may be read once `arrive` has come back."""

    def __init__(self, device: torch.device, arrays: Iterable[Tensor]) -> None:
        """arrays: those that samples are selected from, (n, ..), as long as this is open."""
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._reader = torch.cuda.default_stream(device)  # where the steps of training run
        self._locked = [a for a in arrays if a[0].nbytes >= OWN_COPY_BYTES and _lock(a, device)]
        self._straight = {array.data_ptr() for array in self._locked}

    def select(self, values: Tensor, index: Tensor) -> Tensor:
        """values[index] on the device; index: (n,)."""
        shape = (len(index), *values.shape[1:])
        if values.data_ptr() not in self._straight:
            gathered = torch.empty(shape, dtype=values.dtype, pin_memory=True)
            return self.move(torch.index_select(values, 0, index, out=gathered))
        with torch.cuda.stream(self._stream):
            there = torch.empty(shape, dtype=values.dtype, device=self._device)
            for own, at in zip(there, index.tolist()):
                own.copy_(values[at], non_blocking=True)
        return self._lend(there)

    def move(self, values: Tensor) -> Tensor:
        """The same on the device; of page-locked memory, without waiting for it."""
        with torch.cuda.stream(self._stream):
            there = values.to(self._device, non_blocking=True)
        return self._lend(there)

    def bring(self, batch: Batch) -> Batch:
        """The batch, whose fields and inputs were selected, with all of it on the device as well.

        What the trainer notes down of a batch it reads on the CPU. The same few bytes would hold up
        the step of training if they came on its own stream.
        """
        there = Batch(
            parameters=self.move(batch.parameters),
            t=self.move(batch.t),
            fields=batch.fields,
            simulation=self.move(batch.simulation),
            step=self.move(batch.step),
            inputs=batch.inputs,
            origin=None if batch.origin is None else self.move(batch.origin),
        )
        return replace(batch, there=there)

    def arrive(self) -> None:
        """Returns when everything so far is there; other threads go on meanwhile."""
        self._stream.synchronize()

    def close(self) -> None:
        """Before the arrays go; may be called twice."""
        self.arrive()
        for array in self._locked:
            _runtime().cudaHostUnregister(array.data_ptr())
        self._locked.clear()
        self._straight.clear()

    def _lend(self, there: Tensor) -> Tensor:
        """Its memory is not used again before the steps that were given it are over."""
        there.record_stream(self._reader)
        return there


def _lock(array: Tensor, device: torch.device) -> bool:
    """Page-lock it where it is; says so if that cannot be had."""
    with torch.cuda.device(device):
        answer = int(_runtime().cudaHostRegister(array.data_ptr(), array.nbytes, 0))
    if answer:
        with contextlib.suppress(RuntimeError):
            torch.zeros((), device=device)  # told of this error, so that nothing else is
        logger.warning(
            "%.0f MB of the reservoir cannot be page-locked (CUDA error %d; see ulimit -l), so "
            "every sample is copied once more on its way to the GPU.", array.nbytes / 1e6, answer,
        )  # fmt: skip
    return not answer


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
