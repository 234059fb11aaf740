"""Training on a core of its own, everything else on the others."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

CORE = "PENSTOCK_BENCHMARK_TRAINING_CORE"


def apart() -> list[int]:
    """Chooses the core, for a campaign that trains with "pinned:adam"; gives those of all else."""
    core, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("This takes two cores: training has one of them for itself.")
    os.environ[CORE] = str(core)
    here = str(Path(__file__).resolve().parent)  # where the trainer finds this file
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.getenv("PYTHONPATH")]))
    return others


def adam(parameters: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> Optimizer:
    """Adam; the process that asks for it, which is the trainer, moves to its core."""
    from torch.optim import Adam  # not wanted by who only chooses cores

    os.sched_setaffinity(0, {int(os.environ[CORE])})
    return Adam(list(parameters), lr=lr, weight_decay=weight_decay, fused=True)
