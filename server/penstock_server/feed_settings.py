"""What a rank is told of the shard beside it; `wiring.py` makes it, a `ShardFeed` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FeedSettings:
    """Where a rank finds its shard."""

    shard: str
    folder: str
    address: str
    batch_size: int
    components: dict[str, int]  # name -> components, of fields and input fields
    depth: int = 16  # batches that are promised ahead, at most
    patience_s: float = 120.0
    dtype: str = "float64"  # of parameters and t
    work_ahead: bool = True  # gather in a thread, while the batch before is computed
    patches: dict[str, Any] | None = None  # PatchSettings; None: whole fields
    device: str = "cpu"  # where batches are to be, as `training.device` says it
    rank: int = 0  # on a host of several GPUs it tells which
