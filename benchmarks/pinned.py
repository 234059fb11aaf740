"""Training on a core of its own, in benchmarks that run whole campaigns."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.optim import Adam, Optimizer

CORE = "PENSTOCK_BENCHMARK_TRAINING_CORE"


def apart() -> list[int]:
    """A campaign that is started now may train with "pinned:adam"; gives the cores of all else."""
    core, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("This takes two cores: training has one of them for itself.")
    os.environ[CORE] = str(core)
    here = str(Path(__file__).resolve().parent)  # where the trainer finds this file
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.getenv("PYTHONPATH")]))
    return others


def adam(parameters: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> Optimizer:
    """Adam; the process that asks for it, which is the trainer, moves to its core."""
    os.sched_setaffinity(0, {int(os.environ[CORE])})
    return Adam(list(parameters), lr=lr, weight_decay=weight_decay, fused=True)
