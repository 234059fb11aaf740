"""The loss of a batch that a GPU is still at; the learner gives it, the turns look at it later."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


class PendingLoss:
    """float() waits until this batch is computed, and for nothing that was begun after it."""

    def __init__(self, loss: Tensor) -> None:
        """loss: one value on a CUDA device; it comes from there beside what is computed next."""
        stream = _stream(loss.device)
        stream.wait_stream(torch.cuda.current_stream(loss.device))
        self._value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            self._value.copy_(loss, non_blocking=True)
            self._done.record(stream)
        loss.record_stream(stream)

    def __float__(self) -> float:
        self._done.synchronize()
        return float(self._value)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for the losses of a device: on that of the training the next step would wait for them."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
