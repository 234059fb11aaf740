"""Random boxes out of large fields: seed, rank and the number of the batch say where each lies.

Of a field of 100 MB a step the network sees one box a draw; the slots hold whole fields. The feeds
cut them, and a replay cuts the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penstock_surrogates.batch import Batch

Box = tuple[slice, ...]


@dataclass(frozen=True)
class PatchSettings:
    """What is cut, and from what; the same on all ranks but for `rank`."""

    grid: tuple[int, ...]  # axes of the fields and input fields that are cut
    extents: tuple[int, ...]  # of a box
    names: tuple[str, ...]
    seed: int
    rank: int


class Patches:
    """The boxes of one rank."""

    def __init__(self, settings: PatchSettings) -> None:
        self.extents = settings.extents
        self.names = frozenset(settings.names)
        self._room = np.array(settings.grid) - np.array(settings.extents) + 1
        self._seed, self._rank = settings.seed, settings.rank

    def origins(self, number: int, n: int) -> npt.NDArray[np.int64]:
        """Where the boxes of the n samples of batch `number` begin, (n, axes), uniformly drawn."""
        rng = np.random.default_rng([self._seed, self._rank, number])
        return rng.integers(0, self._room, size=(n, len(self._room)))

    def boxes(self, origins: npt.NDArray[np.int64]) -> list[Box]:
        """One a sample."""
        return [
            tuple(slice(at, at + extent) for at, extent in zip(origin, self.extents))
            for origin in origins.tolist()
        ]

    def cut(self, batch: Batch, number: int) -> Batch:
        """A batch of whole fields, as batch `number` of this rank has it."""
        origins = self.origins(number, len(batch))
        boxes = self.boxes(origins)

        def own(values: Mapping[str, Tensor], leading: Box) -> dict[str, Tensor]:
            return {
                name: torch.stack([each[leading + box] for each, box in zip(array, boxes)])
                if name in self.names
                else array
                for name, array in values.items()
            }

        return replace(
            batch,
            fields=own(batch.fields, (slice(None),)),  # all steps of a sample have one box
            inputs=own(batch.inputs, ()),
            origin=torch.from_numpy(origins),
        )


def find_patches(settings: Mapping[str, Any] | None) -> Patches | None:
    """From `PatchSettings` as a plain dict; None: fields come whole."""
    if settings is None:
        return None
    axes = {name: tuple(settings[name]) for name in ("grid", "extents", "names")}
    return Patches(PatchSettings(**axes, seed=settings["seed"], rank=settings["rank"]))
