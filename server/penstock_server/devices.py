"""Which device a rank computes on; its learner and its feed ask."""

from __future__ import annotations

import torch


def choose_device(name: str, rank: int) -> torch.device:
    """For "auto" a GPU of this host if there is one, else the CPU; ValueError without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f'training.device = "{name}" needs a CUDA device, and this host has none that PyTorch '
            'sees; "auto" takes the CPU then.'
        )
    if name == "cuda":
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device(name)
