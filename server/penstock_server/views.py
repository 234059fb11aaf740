"""Read-only views of slabs for the validator: held-out simulations, and the training stream."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from penstock import wire
from penstock_server.evaluation import Trajectory
from penstock_server.ledger import Ledger
from penstock_server.slab import COMMITTED, Slab, SlabError
from penstock_surrogates.batch import Batch

Array = npt.NDArray[Any]


class HeldOutStore:
    """The complete simulations of the held-out shard."""

    def __init__(self, folder: Path, patience_s: float) -> None:
        self._slab = wait_for_slab(folder, patience_s)
        self._folder = folder

    def trajectories(self, role: str) -> list[Trajectory]:
        """Every simulation of the role of which all steps are there, by id."""
        descriptor, slots = self._slab.descriptor, defaultdict(list)
        code = wire.ROLES.index(role)
        for slot in np.flatnonzero(
            (descriptor["state"] == COMMITTED) & (descriptor["role"] == code)
        ):
            slots[int(descriptor["simulation"][slot])].append(int(slot))
        if not slots:
            return []
        ledger = Ledger(self._folder / "ledger", writable=False)
        return [
            self._trajectory(simulation, role, own)
            for simulation, own in sorted(slots.items())
            if len(own) == ledger.n_segments(simulation)
        ]

    def _trajectory(self, simulation: int, role: str, slots: list[int]) -> Trajectory:
        slab, descriptor = self._slab, self._slab.descriptor
        slots.sort(key=lambda slot: int(descriptor["segment"][slot]))
        held = [int(descriptor["n_steps"][slot]) for slot in slots]

        def joined(array: Array) -> torch.Tensor:
            pieces = [array[slot, :n] for slot, n in zip(slots, held)]
            return torch.from_numpy(np.concatenate(pieces))

        row = int(descriptor["row"][slots[0]])
        return Trajectory(
            simulation=simulation,
            role=role,
            parameters=torch.from_numpy(slab.parameters[slots[0], : slab.spec.n_parameters].copy()),
            t=joined(slab.t),
            step=torch.arange(sum(held)),
            fields={name: joined(array) for name, array in slab.fields.items()},
            inputs={n: torch.from_numpy(array[row].copy()) for n, array in slab.inputs.items()},
        )


class StreamPeek:
    """Steps that the training shards admitted, each shown once if it is still there."""

    def __init__(self, folders: list[Path], patience_s: float) -> None:
        self._slabs = [wait_for_slab(folder, patience_s) for folder in folders]
        self._seen = [0] * len(folders)  # ordinal of the newest segment that was shown

    def new_samples(self, max_samples: int) -> Batch | None:
        """Up to max_samples single steps (k = 1), oldest first; None when there is nothing new."""
        for i, slab in enumerate(self._slabs):
            batch = self._read(i, slab, max_samples)
            if batch is not None:
                return batch
        return None

    def _read(self, i: int, slab: Slab, max_samples: int) -> Batch | None:
        descriptor, length = slab.descriptor, slab.spec.segment_steps
        new = np.flatnonzero(
            (descriptor["state"] == COMMITTED) & (descriptor["ordinal"] > self._seen[i])
        )
        if len(new) == 0:
            return None
        new = new[np.argsort(descriptor["ordinal"][new])][: max(1, max_samples // length)]
        before = descriptor[new].copy()
        self._seen[i] = int(before["ordinal"][-1])
        held = before["n_steps"]
        slots = np.repeat(new, held)
        offsets = np.concatenate([np.arange(n) for n in held])
        fields = {name: array[slots, offsets] for name, array in slab.fields.items()}
        inputs = {
            name: array[np.repeat(before["row"], held)] for name, array in slab.inputs.items()
        }
        parameters = slab.parameters[slots, : slab.spec.n_parameters]
        t = slab.t[slots, offsets]
        intact = descriptor["generation"][new] == before["generation"]
        keep = np.repeat(intact, held)
        if not keep.any():
            return self._read(i, slab, max_samples)
        steps = np.repeat(before["segment"].astype(np.int64), held) * length + offsets
        return Batch(
            parameters=torch.from_numpy(parameters[keep]),
            t=torch.from_numpy(t[keep][:, None]),
            fields={n: torch.from_numpy(values[keep][:, None]) for n, values in fields.items()},
            simulation=torch.from_numpy(
                np.repeat(before["simulation"].astype(np.int64), held)[keep]
            ),
            step=torch.from_numpy(steps[keep][:, None]),
            inputs={name: torch.from_numpy(values[keep]) for name, values in inputs.items()},
        )


def wait_for_slab(folder: Path, patience_s: float, writable: bool = False) -> Slab:
    """Maps a slab as soon as its receiver has made it; raises SlabError after patience_s."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Slab.attach(folder, writable)
        except (SlabError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def open_views(settings: dict[str, Any]) -> tuple[HeldOutStore, StreamPeek]:
    """The validator's source: {"held_out": folder, "training": [folders], "patience_s": s}."""
    patience_s = float(settings.get("patience_s", 120.0))
    held_out = HeldOutStore(Path(settings["held_out"]), patience_s)
    return held_out, StreamPeek([Path(f) for f in settings["training"]], patience_s)
