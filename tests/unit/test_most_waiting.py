"""How many large messages ZeroMQ keeps for a receiver that is busy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from campaigns import small

from penstock_server.curve import Guard
from penstock_server.intake import Intake
from penstock_server.ledger import Ledger
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.sizes import BUNCHES, LARGE_BYTES, WAITING, most_waiting
from penstock_server.slab import Slab, SlabSpec

LARGE = "fields.temperature.shape=[256, 256]"
LARGER = "fields.temperature.shape=[1024, 1025]"
MESSAGE = 1 << 20
SENT = 64


def test_a_few_large_messages_wait_of_all_connections_together() -> None:
    def waiting(workers: int, *overrides: str) -> int:
        return most_waiting(small(LARGER, f"solver.workers={workers}", *overrides))

    assert [waiting(workers) for workers in (1, 2, 3, 16)] == [WAITING, WAITING // 2, 1, 1]
    # Of two workers each shard has one, of two with two shards each it has both.
    ranks = "training.ranks=2"
    assert waiting(2, ranks, "stream.shards_per_simulation=1") == WAITING
    assert waiting(2, ranks, "stream.shards_per_simulation=2") == WAITING // 2
    assert waiting(4, ranks, "stream.shards_per_simulation=1") == WAITING // 2


@pytest.mark.parametrize("shape", ["[256, 256]", "[1024, 1024]"])
def test_steps_as_large_as_a_bunch_wait_like_one(shape: str) -> None:
    def waiting(workers: int) -> int:
        field = f"fields.temperature.shape={shape}"
        return most_waiting(small(field, f"solver.workers={workers}"))

    assert [waiting(workers) for workers in (1, 2, 3, 16)] == [WAITING, BUNCHES, BUNCHES, BUNCHES]


def test_small_messages_wait_without_a_limit_but_not_bunches() -> None:
    assert 256 * 256 * 4 == LARGE_BYTES
    below, alone = "fields.temperature.shape=[256, 255]", "stream.bunch_bytes=0"
    assert most_waiting(small(LARGE, alone)) > 0
    assert most_waiting(small(below, alone)) == 0
    assert most_waiting(small(below, f"stream.bunch_bytes={LARGE_BYTES - 1}")) == 0
    for workers in (1, 16):
        assert most_waiting(small(below, f"solver.workers={workers}")) == BUNCHES


@pytest.mark.parametrize(("most", "left"), [(1, True), (0, False)])
def test_what_a_busy_receiver_does_not_take_stays_with_its_sender(
    tmp_path: Path, most: int, left: bool
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    intake = small_intake(context, tmp_path, most)
    sender = context.socket(zmq.DEALER)
    sender.setsockopt(zmq.SNDHWM, 0)
    sender.connect(intake.address)
    content = bytes(MESSAGE)
    sent: list[Any] = [sender.send(content, copy=False, track=True) for _ in range(SENT)]
    try:
        if left:  # but for what the kernel takes
            with pytest.raises(zmq.NotDone):
                sent[-1].wait(1.0)
        else:
            sent[-1].wait(20.0)
        deadline = time.monotonic() + 20.0
        while intake.counters["malformed"] < SENT and time.monotonic() < deadline:
            intake.turn()
        assert intake.counters["malformed"] == SENT  # zeros are no header; none is lost
    finally:
        sender.close(linger=0)
        intake.close()
        context.destroy(linger=0)


def small_intake(context: zmq.Context[zmq.Socket[bytes]], folder: Path, most: int) -> Intake:
    slab = Slab.create(folder / "slab", SlabSpec(2, 1, 1, 0, {"u": ((3,), "float32")}, {}, 0, 1))
    reservoir = Reservoir("reservoir", slab.drawn, np.random.default_rng(0))
    shard = Shard(slab, Ledger(folder / "ledger"), reservoir, ["u"], max_steps=10)
    return Intake(context, shard, 1, "tcp://127.0.0.1:*", Guard(context, None, "tested"), most)
