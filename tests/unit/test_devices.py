"""Where a rank computes."""

from __future__ import annotations

import pytest
import torch

from penstock_server.devices import choose_device


@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [("auto", 3, "cuda:1"), ("cuda", 2, "cuda:0"), ("cuda:1", 0, "cuda:1"), ("cpu", 1, "cpu")],
)
def test_ranks_of_a_host_share_its_gpus(
    monkeypatch: pytest.MonkeyPatch, name: str, rank: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(name, rank) == torch.device(expected)


def test_without_a_gpu_there_is_the_cpu_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 0) == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match="needs a CUDA device"):
            choose_device(name, 0)
