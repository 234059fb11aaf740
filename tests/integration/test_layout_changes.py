"""Layouts that change: between two simulations as often as a program likes, and not in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_receiver_clients import SHAPE, Stage, content, stage
from threaded_comm import ThreadedComm, run_ranks

import penstock
from penstock.errors import LayoutError

__all__ = ["stage"]

pytestmark = pytest.mark.timeout(60)


def half(axis: int, rank: int) -> tuple[slice, ...]:
    n = SHAPE[axis] // 2
    axes = [slice(None), slice(None)]
    axes[axis] = slice(n * rank, n * rank + n)
    return tuple(axes)


def lay_out(link: penstock.Link, owned: Any) -> None:
    link.layout("u", global_shape=SHAPE, owned=owned)


@pytest.mark.parametrize("gather", [None, "root"])
def test_it_may_change_for_every_simulation_while_the_receiver_is_killed(
    stage: Stage, gather: str | None
) -> None:
    simulations = list(range(8))
    stage.begin(simulations, shards=2, bunch_bytes=1 << 16)
    receiver = stage.receivers[0]

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        with penstock.connect(comm, gather=gather) as link:
            lay_out(link, half(0, rank))  # of no simulation
            for sim in link.simulations():
                mine = half(sim.id % 2, rank)
                lay_out(link, half(1 - sim.id % 2, rank))
                lay_out(link, mine)  # nothing has been sent
                for step in range(6):
                    sim.send(0.1 * step, u=content(sim.id, step)[mine])
                    if (rank, sim.id, step) == (0, 3, 3):
                        receiver.kill()
                        receiver.start()
                if sim.id == 5:
                    sim.end()
                    lay_out(link, mine)
            for sender in link._senders.values():
                sender.drain()
                plans = [key for key in sender._announced if key[0] == "plan"]  # type: ignore[index]
                assert plans == [("plan", link._plans.number)]

    run_ranks(2, program)
    stage.delivered()
    stored = {**stage.stored(0), **stage.stored(1)}
    assert sorted(stored) == [(s, k) for s in simulations for k in range(6)]
    for (simulation, step), field in stored.items():
        np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))


def test_it_may_not_change_once_something_has_been_sent(stage: Stage) -> None:
    stage.begin([7], inputs={"k": {"shape": [3], "dtype": "float64"}}, order=["u", "k"], rows=8)
    words = "The layout of '[uk]' cannot change during simulation 7: call link.layout between simul"
    with penstock.connect() as link:
        for sim in link.simulations():
            sim.inputs(k=np.zeros(3))
            with pytest.raises(LayoutError, match=words):
                link.layout("k", global_shape=(3,), owned=np.arange(3))
            for step in range(4):
                sim.send(0.1 * step, u=content(7, step))
                with pytest.raises(LayoutError, match=words):
                    lay_out(link, half(0, 0))
    stage.delivered()
    for (simulation, step), field in stage.stored().items():
        np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))
