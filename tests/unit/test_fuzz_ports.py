"""The fuzzers of both ports on random scripts; `make fuzz` runs them coverage-guided."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from control_port import ControlPort
from data_port import DataPort

from penstock_server.bunches import Bunches

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_frames_on_the_data_port_are_answered_or_dropped(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    admit = Bunches.admit

    def counted(*arguments: Any) -> tuple[list[int], list[int]] | None:
        admitted = admit(*arguments)
        at_once.append(0 if admitted is None else len(admitted[0]))
        return admitted

    monkeypatch.setattr(Bunches, "admit", counted)
    port, rng = DataPort(), random.Random(seed)
    try:
        for _ in range(1400):
            port.take(rng.randbytes(rng.randrange(120)))
    finally:
        port.close()
    assert port.frames > 3000
    assert port.lent_bytes > 0
    assert max(at_once) > 1
    assert 0 in at_once


@pytest.mark.parametrize("seed", range(3))
def test_mutated_requests_on_the_control_port_are_answered(seed: int) -> None:
    port, rng = ControlPort(), random.Random(seed)
    for _ in range(300):
        port.take(rng.randbytes(rng.randrange(100)))
    assert port.frames > 500
