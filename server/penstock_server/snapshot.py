"""Snapshots in memory-backed folders: cheap, often, what all ranks go back to when one dies.

The trainer's first rank writes `batch-000000200/` under a temporary name and renames it:
`model/` (a trained surrogate as `penstock_surrogates.storage` reads it, for the validator too),
`state.pt` (optimiser, schedule, counters, random states of all ranks) and `snapshot.json`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

PREFIX = "batch-"
PART = ".part"


@dataclass(frozen=True)
class Snapshot:
    """One that stands."""

    folder: Path
    batch: int

    @property
    def model(self) -> Path:
        """The folder that `storage.load` takes."""
        return self.folder / "model"

    def about(self) -> dict[str, Any]:
        """Batch, draws, unique samples and seconds of training, from snapshot.json."""
        described: dict[str, Any] = json.loads((self.folder / "snapshot.json").read_text("utf-8"))
        return described

    def state(self) -> dict[str, Any]:
        """What `write` was given as state; nothing in it is unpickled."""
        loaded: dict[str, Any] = torch.load(
            self.folder / "state.pt", map_location="cpu", weights_only=True
        )
        return loaded


def write(
    root: Path,
    batch: int,
    save_model: Callable[[Path], None],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Snapshot:
    """Write the snapshot of `batch`; it appears complete or not at all."""
    folder = at(root, batch).folder
    part = root / f"{folder.name}{PART}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_model(part / "model")
    torch.save(dict(state), part / "state.pt")
    sizes = {str(f.relative_to(part)): f.stat().st_size for f in part.rglob("*") if f.is_file()}
    described = {**about, "batch": batch, "files": sizes}
    (part / "snapshot.json").write_text(json.dumps(described), encoding="utf-8")
    # A snapshot of this batch can be there from before a restart; a folder cannot replace one.
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return at(root, batch)


def at(root: Path, batch: int) -> Snapshot:
    """Where the snapshot of `batch` is, or would be."""
    return Snapshot(root / f"{PREFIX}{batch:09d}", batch)


def newest(root: Path) -> Snapshot | None:
    """The newest complete snapshot, for a restart and for the validator."""
    for snapshot in reversed(standing(root)):
        if is_complete(snapshot):
            return snapshot
    return None


def standing(root: Path) -> list[Snapshot]:
    """All snapshots in `root`, oldest first."""
    folders = sorted(root.glob(f"{PREFIX}*")) if root.is_dir() else []
    return [
        Snapshot(folder, int(folder.name.removeprefix(PREFIX)))
        for folder in folders
        if folder.name.removeprefix(PREFIX).isdigit()
    ]


def is_complete(snapshot: Snapshot) -> bool:
    """Whether every file has the size that was written."""
    try:
        sizes = snapshot.about()["files"]
        return all((snapshot.folder / name).stat().st_size == n for name, n in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def prune(root: Path, keep: int = 2, in_use: int | None = None) -> None:
    """Remove all but the newest `keep`; `in_use` is the batch of one that is being copied."""
    for snapshot in standing(root)[:-keep]:
        if snapshot.batch != in_use:
            shutil.rmtree(snapshot.folder, ignore_errors=True)


def random_states(device: torch.device) -> dict[str, Any]:
    """The random states of this process, as `torch.load(weights_only=True)` takes them."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
    }


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Back to `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
