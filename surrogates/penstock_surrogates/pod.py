"""A POD basis from the first snapshots of a stream, for the linear emulator of large fields."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_surrogates.normalisation import Moments, Scale


class Pod:
    """Collects every `stride`-th snapshot, then reduces fields to at most `rank` coefficients.

    Each field is weighted by one over its spread, so that units do not choose the modes.
    """

    def __init__(self, sizes: list[int], snapshots: int, stride: int, rank: int) -> None:
        """`sizes`: values of each field in a row, in order."""
        self.rank = rank
        self._sizes = sizes
        self._snapshots = snapshots
        self._stride = stride
        self._seen = 0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._basis: Tensor | None = None  # (size, r), orthonormal in the weighted fields
        self._centre = torch.zeros(0)
        self._weight = torch.zeros(0)

    @property
    def ready(self) -> bool:
        """The basis stands."""
        return self._basis is not None

    @property
    def full(self) -> bool:
        """Enough snapshots for a basis."""
        return len(self._rows) >= self._snapshots

    @property
    def empty(self) -> bool:
        return not self._rows

    def add(self, x: Tensor, step: Tensor, y: Tensor) -> int:
        """Keep some of the rows x (n, q), step (n,), y (n, size) until full; how many were read."""
        for row in range(len(y)):
            if self.full:
                return row
            if self._seen % self._stride == 0:
                self._rows.append((x[row], step[row], y[row].clone()))
            self._seen += 1
        return len(y)

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Make the basis; give back the snapshots that it came from, as added."""
        x, step, y = (torch.stack(column) for column in zip(*self._rows, strict=True))
        self._rows = []
        self._centre = y.mean(dim=0)
        widths = [
            Scale.standard(Moments.of(part)).width[0] for part in torch.split(y, self._sizes, dim=1)
        ]
        self._weight = torch.cat(
            [torch.full((n,), w, dtype=y.dtype) for n, w in zip(self._sizes, widths, strict=True)]
        )
        _, values, modes = torch.linalg.svd((y - self._centre) / self._weight, full_matrices=False)
        present = int((values > 1e-13 * values[:1]).sum())  # the rest are rounding
        self._basis = modes[: max(1, min(self.rank, present))].T.contiguous()
        return x, step, y

    def encode(self, y: Tensor) -> Tensor:
        """(n, size) -> (n, r)."""
        assert self._basis is not None
        return ((y - self._centre) / self._weight) @ self._basis

    def decode(self, coefficients: Tensor) -> Tensor:
        """(n, r) -> (n, size)."""
        assert self._basis is not None
        return coefficients @ self._basis.T * self._weight + self._centre
