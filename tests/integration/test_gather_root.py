"""Ranks whose parts rank 0 sends: real clients with ranks that are threads, a real receiver."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assignment, wait_for
from test_receiver_clients import (
    SHAPE,
    Stage,
    content,
    owned_columns,
    owned_rows,
    owned_scattered,
    stage,
)
from threaded_comm import ThreadedComm, run_ranks

import penstock
from penstock.errors import ConnectionLost, LayoutError, PenstockError
from penstock.gathering import Gathering
from penstock.layout import FieldSpec, Owned, Share, share
from penstock.ranks import Ranks
from penstock_server.slab import COMMITTED, Slab

__all__ = ["stage"]

pytestmark = pytest.mark.timeout(60)


def cut(field: np.ndarray, owned: Any) -> np.ndarray:
    """What a rank has of a field."""
    return field.reshape(-1)[owned] if isinstance(owned, np.ndarray) else field[owned]


def connect(comm: ThreadedComm, owned: Any) -> penstock.Link:
    link = penstock.connect(comm, gather="root")
    link.layout("u", global_shape=SHAPE, owned=owned)
    return link


def send_all(comm: ThreadedComm, owned: Any, steps: int = 5) -> None:
    """A solver on one rank of several."""
    mine = owned(comm.Get_rank(), comm.Get_size())
    with connect(comm, mine) as link:
        for sim in link.simulations():
            for step in range(steps):
                sim.send(0.1 * step, u=cut(content(sim.id, step), mine))
        assert bool(link._senders) == (comm.Get_rank() == 0)


def check(stage: Stage, steps: Mapping[int, int], shard: int = 0) -> None:
    """Everything stands there as it was sent, from one part."""
    stored = stage.stored(shard)
    assert sorted(stored) == [(s, k) for s, n in steps.items() for k in range(n)]
    for (simulation, step), field in stored.items():
        np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))
    slab = Slab.attach(Path(stage.receivers[shard].settings.folder))
    rows = slab.descriptor[slab.descriptor["state"] == COMMITTED]
    assert set(rows["n_parts"].tolist()) == {1}
    hellos = [r for r in stage.coordinator.requests if r["kind"] == "hello"]
    assert {hello["parts"] for hello in hellos} == {1}


def outcomes(stage: Stage) -> dict[int, tuple[str, str]]:
    """How the worker said that each simulation ended, and why."""
    told = [p for r in stage.coordinator.requests if (p := r.get("previous"))]
    return {p["simulation"]: (p["outcome"], p["reason"]) for p in told}


@pytest.mark.parametrize("bunch_bytes", [0, 600])
@pytest.mark.parametrize("owned", [owned_rows, owned_columns, owned_scattered])
def test_a_simulation_arrives_equal_from_two_and_four_ranks_as_one_part(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, owned: Any, bunch_bytes: int
) -> None:
    stage.begin([0, 1], bunch_bytes=bunch_bytes, shared_memory=True)
    for i, size in enumerate((2, 4)):
        monkeypatch.setenv("PENSTOCK_WORKER", f"w{size}")
        stage.coordinator.assignments = [assignment(i, ["0"])]
        stage.coordinator.expected = frozenset(range(i + 1))
        run_ranks(size, lambda comm: send_all(comm, owned))
    check(stage, {0: 5, 1: 5})


def test_a_rank_may_own_nothing(stage: Stage) -> None:
    stage.begin([0, 1])
    owned = [slice(0, 3), slice(3, 3), slice(3, 8), slice(8, 8)]
    run_ranks(4, lambda comm: send_all(comm, lambda rank, size: (owned[rank], slice(None))))
    stage.delivered()
    check(stage, {0: 5, 1: 5})


def test_steps_arrive_once_over_two_shards_of_which_one_is_killed(stage: Stage) -> None:
    stage.begin(list(range(6)), shards=2, bunch_bytes=1 << 18)
    first = stage.receivers[0]

    def kill() -> None:
        for _ in range(2):
            seen = stage.counters().get("admitted", 0)
            wait_for(lambda: stage.counters().get("admitted", 0) != seen, what="progress")  # noqa: B023
            first.kill()
            first.start()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run_ranks(3, lambda comm: send_all(comm, owned_rows, steps=9))
    killer.join(20)
    stage.delivered()
    for shard in range(2):
        stored = stage.stored(shard)
        assert set(stored) == {(s, k) for s in range(6) for k in range(9) if k % 2 == shard}
        for (simulation, step), field in stored.items():
            np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))


def test_while_the_shard_has_no_room_all_ranks_wait(stage: Stage) -> None:
    stage.begin([0, 1])
    stage.coordinator.welcome["stream"]["window_bytes"] = 1000
    process = stage.receivers[0].process
    wakers = []

    def program(comm: ThreadedComm) -> None:
        mine = owned_rows(comm.Get_rank(), 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(30):
                    if step == 3 and comm.Get_rank() == 2:
                        os.kill(process.pid, signal.SIGSTOP)
                        wakers.append(threading.Timer(1.0, os.kill, (process.pid, signal.SIGCONT)))
                        wakers[-1].start()
                    sim.send(0.1 * step, u=cut(content(sim.id, step), mine))
                if comm.Get_rank() == 0:
                    sim.end()
                    assert sim.time_s["window"] + sim.time_s["credit"] > 0.5

    run_ranks(3, program)
    stage.delivered()
    for waker in wakers:
        waker.join()
    check(stage, {0: 30, 1: 30})


def test_each_rank_sends_what_the_campaign_wants_of_its_share(stage: Stage) -> None:
    sent = {"shape": [3, 2], "dtype": "float32"}
    inputs = {"k": {"shape": [48], "dtype": "float64"}}
    stage.begin([0, 1], fields={"u": sent}, inputs=inputs, order=["u", "k"], rows=8)
    wanted = {"shape": SHAPE, "crop": [[1, 7], [0, 6]], "stride": [2, 3], "every": 2}
    stage.coordinator.welcome["fields"]["u"].update(wanted)

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine, flat = owned_columns(rank, 3), np.arange(48)[rank::3]
        with connect(comm, mine) as link:
            link.layout("k", global_shape=(48,), owned=flat)
            for sim in link.simulations():
                sim.inputs(k=sim.id + flat / 7)
                for step in range(8):
                    u = sim.empty("u", content(0, 0)[mine].shape)
                    u[...] = content(sim.id, step)[mine]
                    sim.send(0.1 * step, u=u)

    run_ranks(3, program)
    stage.delivered()
    stored = stage.stored()
    assert sorted(stored) == [(s, k) for s in range(2) for k in range(4)]
    for (simulation, step), field in stored.items():
        expected = content(simulation, 2 * step)[1:7:2, ::3]
        np.testing.assert_array_equal(field, expected.astype("f4"))
    slab = Slab.attach(Path(stage.receivers[0].settings.folder))
    for row in slab.descriptor[slab.descriptor["state"] == COMMITTED]:
        expected = int(row["simulation"]) + np.arange(48) / 7
        np.testing.assert_array_equal(slab.inputs["k"][row["row"]], expected)


def test_fields_of_other_dtypes_come_side_by_side(stage: Stage) -> None:
    fields = {
        "u": {"shape": list(SHAPE), "dtype": "float32"},
        "p": {"shape": [5], "dtype": "float64"},
        "drag": {"shape": [], "dtype": "float64"},
    }
    stage.begin([0], fields=fields, order=list(fields))

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine, flat = owned_rows(rank, 3), np.array_split(np.array([4, 0, 2, 1, 3]), 3)[rank]
        lone = np.arange(1 if rank == 1 else 0)
        with connect(comm, mine) as link:
            link.layout("p", global_shape=(5,), owned=flat)
            link.layout("drag", global_shape=(), owned=lone)
            for sim in link.simulations():
                for step in range(4):
                    u, p = content(sim.id, step)[mine], step + flat / 3
                    sim.send(0.1 * step, u=u, p=p, drag=np.full(len(lone), step + 0.5))

    run_ranks(3, program)
    stage.delivered()
    check(stage, {0: 4})
    slab = Slab.attach(Path(stage.receivers[0].settings.folder))
    for slot in np.flatnonzero(slab.descriptor["state"] == COMMITTED):
        step = int(slab.descriptor["segment"][slot])
        np.testing.assert_array_equal(slab.fields["p"][slot, 0], step + np.arange(5) / 3)
        assert slab.fields["drag"][slot, 0] == step + 0.5


def test_only_wanted_segments_are_gathered(stage: Stage) -> None:
    stage.begin([0], segment_steps=2, window=2)
    stage.coordinator.assignments = [
        assignment(0, ["0"]),
        assignment(0, ["0"], lease=2, wanted=[[1, 2]], attempt=2),
    ]

    def program(comm: ThreadedComm) -> None:
        mine = owned_rows(comm.Get_rank(), 2)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(6):
                    if (sim.attempt, step) == (1, 3):
                        sim.fail("a power cut")
                        break
                    sim.send(0.1 * step, u=content(0, step)[mine])

    run_ranks(2, program)
    stage.delivered()
    slab = Slab.attach(Path(stage.receivers[0].settings.folder))
    rows = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
    rows = rows[np.argsort(slab.descriptor["segment"][rows])]
    assert slab.descriptor["lease"][rows].tolist() == [1, 2, 2]
    stored = slab.fields["u"][rows].reshape(6, *SHAPE)
    np.testing.assert_array_equal(stored, [content(0, step).astype("f4") for step in range(6)])


def test_a_simulation_of_which_nothing_is_wanted_ends(stage: Stage) -> None:
    stage.begin([0])
    stage.coordinator.expected = frozenset()
    stage.coordinator.assignments = [assignment(0, ["0"], wanted=[])]
    run_ranks(2, lambda comm: send_all(comm, owned_rows))
    assert outcomes(stage)[0][0] == "ended"


def test_what_a_shard_refuses_of_one_rank_ends_on_all_at_the_same_step(stage: Stage) -> None:
    stage.begin([0, 1])
    stage.coordinator.expected = frozenset([1])
    heard: list[tuple[int, int, str | None]] = []

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(4000 if sim.id == 0 else 6):
                    field = content(sim.id, step)[mine]
                    if (sim.id, step, rank) == (0, 3, 2):
                        field[0, 0] = np.inf
                    if sim.cancelled:
                        heard.append((rank, step, sim.refusal))
                        break
                    sim.send(0.1 * step, u=field)
                sim.end()
                assert sim.outcome == ("ended" if sim.id else "refused")

    run_ranks(3, program)
    stage.delivered()
    assert sorted(rank for rank, _, _ in heard) == [0, 1, 2]
    assert len({(step, why) for _, step, why in heard}) == 1
    assert "not finite at step 3" in str(heard[0][2])
    assert outcomes(stage)[0][0] == "refused"
    assert outcomes(stage)[1] == ("ended", "")


def test_ranks_that_send_nothing_for_long_hear_that_it_is_cancelled(stage: Stage) -> None:
    stage.begin([0, 1])
    stage.coordinator.expected = frozenset([1])
    heard: list[int] = []

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 2)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                sim.send(0.0, u=content(sim.id, 0)[mine])
                if sim.id == 0:
                    stage.coordinator.orders["retired"] = [0]
                    for iteration in range(10**6):
                        if sim.cancelled:
                            heard.append(iteration)
                            break
                        time.sleep(0.002)

    run_ranks(2, program)
    stage.delivered()
    assert len(heard) == 2
    assert len(set(heard)) == 1
    assert "not wanted any more" in outcomes(stage)[0][1]


@pytest.mark.parametrize("asks", [0, 1, 4])
@pytest.mark.parametrize("who", [0, 2])
def test_what_one_rank_gives_up_fails_on_all_with_its_reason(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, who: int, asks: int
) -> None:
    monkeypatch.setattr("penstock.ranks.ASK_S", 0.0)  # they ask each other at every call
    stage.begin([0, 1])
    stage.coordinator.expected = frozenset([1])
    ends: list[tuple[str | None, str]] = []

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                with sim:
                    for step in range(30):
                        if (sim.id, rank, step) == (0, who, 7):
                            raise ArithmeticError("a negative depth")
                        if any(sim.cancelled for _ in range(asks)):
                            break
                        sim.send(0.1 * step, u=content(sim.id, step)[mine])
                if sim.id == 0:
                    ends.append((sim.outcome, sim.reason))

    run_ranks(3, program)
    stage.delivered()
    assert ends == [("failed", "ArithmeticError: a negative depth")] * 3
    assert outcomes(stage) == {0: ends[0], 1: ("ended", "")}
    check(stage, {0: 7, 1: 30})


def test_when_all_ranks_give_up_it_is_told_once(stage: Stage) -> None:
    stage.begin([0, 1])
    stage.coordinator.expected = frozenset([1])

    def program(comm: ThreadedComm) -> None:
        mine = owned_rows(comm.Get_rank(), 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(5):
                    sim.send(0.1 * step, u=content(sim.id, step)[mine])
                if sim.id == 0:
                    sim.fail("diverged")

    run_ranks(3, program)
    stage.delivered()
    assert outcomes(stage) == {0: ("failed", "diverged"), 1: ("ended", "")}


def test_ranks_that_come_to_different_calls_end_the_simulation_and_not_the_program(
    stage: Stage,
) -> None:
    stage.begin([0, 1])
    stage.coordinator.expected = frozenset([1])

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(4 if (sim.id, rank) == (0, 1) else 6):
                    sim.send(0.1 * step, u=content(sim.id, step)[mine])

    run_ranks(3, program)
    stage.delivered()
    assert outcomes(stage) == {
        0: (
            "failed",
            "The MPI ranks disagree: 2 sent a step and 1 ended it. "
            'With gather="root" all of them make the same calls.',
        ),
        1: ("ended", ""),
    }


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([slice(0, 4), slice(5, 8)], "6 of 48 values belong to no part"),
        ([slice(0, 5), slice(4, 8)], "names an index twice"),
    ],
)
def test_gaps_and_overlaps_between_ranks_are_refused_by_the_shard(
    stage: Stage, rows: list[slice], why: str
) -> None:
    stage.begin([0])
    stage.coordinator.expected = frozenset()
    run_ranks(2, lambda comm: send_all(comm, lambda rank, size: (rows[rank], slice(None)), 40))
    wait_for(lambda: bool(stage.coordinator.refused), what="the refusal")
    (refused,) = stage.coordinator.refused
    assert refused["kind"] == "layout"
    assert why in refused["reason"]
    outcome, reason = outcomes(stage)[0]
    assert outcome == "refused"
    assert why in reason


def test_a_layout_may_change_between_simulations_on_one_rank_alone_and_not_in_one(
    stage: Stage,
) -> None:
    stage.begin([0, 1, 2])
    told: list[str] = []

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 2)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                if rank == 1 and sim.id > 0:  # the same values in another order
                    mine = np.arange(48).reshape(SHAPE)[owned_rows(1, 2)].reshape(-1)
                    mine = mine[:: -1 if sim.id == 1 else 1]
                    link.layout("u", global_shape=SHAPE, owned=mine)
                for step in range(3):
                    sim.send(0.1 * step, u=cut(content(sim.id, step), mine))
                    with pytest.raises(LayoutError) as error:
                        link.layout("u", global_shape=SHAPE, owned=mine)
                    told.append(str(error.value))

    run_ranks(2, program)
    stage.delivered()
    check(stage, {0: 3, 1: 3, 2: 3})
    assert len(told) == 18
    assert "of 'u' cannot change during simulation 2: call link.layout between" in told[-1]


def test_an_exception_on_one_rank_is_reported_and_ends_all(stage: Stage) -> None:
    """The others wait for it inside the solver, where they cannot hear of it."""
    stage.begin([0])
    stage.coordinator.expected = frozenset()
    aborted, halo = threading.Event(), threading.Barrier(3)

    class Comm(ThreadedComm):
        """Whoever waits is ended by an Abort of any rank."""

        def Abort(self, code: int) -> None:
            aborted.set()
            halo.abort()

        def _collective(self, *arguments: Any) -> Any:
            request = super()._collective(*arguments)
            test = request.Test

            def Test() -> bool:
                if aborted.is_set():
                    raise SystemExit(1)
                return test()

            request.Test = Test  # type: ignore[method-assign]
            return request

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        mine = owned_rows(rank, 3)
        with connect(comm, mine) as link:
            for sim in link.simulations():
                for step in range(5):
                    if (rank, step) == (1, 2):
                        raise ArithmeticError("a negative depth")
                    halo.wait()
                    sim.send(0.1 * step, u=content(sim.id, step)[mine])

    def quietly(comm: ThreadedComm) -> None:
        with pytest.raises((ArithmeticError, threading.BrokenBarrierError, SystemExit)):
            program(comm)

    threads = [threading.Thread(target=quietly, args=[c], daemon=True) for c in Comm.ranks(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    fails = [r for r in stage.coordinator.requests if r["kind"] == "fail"]
    assert fails[0]["reason"] == "ArithmeticError: a negative depth"


def test_without_a_server_every_rank_checks_and_drops_what_it_sends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENSTOCK_COORDINATOR", raising=False)

    def program(comm: ThreadedComm) -> None:
        mine = owned_rows(comm.Get_rank(), 2)
        with connect(comm, mine) as link:
            sim = link.simulation()
            assert sim is not None
            sim.send(0.0, u=content(0, 0)[mine])
            with pytest.raises(LayoutError, match="came with the shape"):
                sim.send(0.1, u=content(0, 0))

    run_ranks(2, program)
    assert "1 steps of u (8, 6) were checked" in capsys.readouterr().err


def test_there_is_no_other_way_to_gather() -> None:
    with pytest.raises(PenstockError, match=r"gather='Root'; there are None .* and \"root\""):
        penstock.connect(gather="Root")


def test_ranks_that_gather_and_ranks_that_do_not_are_all_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_COORDINATOR", "tcp://127.0.0.1:9")

    def program(comm: ThreadedComm) -> None:
        with pytest.raises(PenstockError, match="1 of 3 MPI ranks called"):
            penstock.connect(comm, gather=None if comm.Get_rank() else "root")

    run_ranks(3, program)


def test_a_coordinator_that_does_not_answer_is_told_on_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.source.PATIENCE_S", 0.05)
    monkeypatch.setenv("PENSTOCK_COORDINATOR", "tcp://127.0.0.1:9")

    def program(comm: ThreadedComm) -> None:
        with pytest.raises(ConnectionLost, match="did not answer 'hello'"):
            penstock.connect(comm, gather="root")

    run_ranks(2, program)


class Fields:
    """What a link tells of the fields that its rank laid out."""

    def __init__(self, **fields: tuple[tuple[int, ...], Owned]) -> None:
        self.specs = {
            name: FieldSpec(name, i, shape, np.dtype("f8"))
            for i, (name, (shape, _)) in enumerate(fields.items())
        }
        self._owned = {name: owned for name, (_, owned) in fields.items()}

    def shares(self) -> dict[str, Share]:
        return {name: share(spec, self._owned[name]) for name, spec in self.specs.items()}

    def fields_of(self, when: str) -> list[FieldSpec]:
        return list(self.specs.values()) if when == "step" else []

    def forget_plan(self) -> None: ...


HALF = (slice(0, 2),)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Fields(u=((4,), HALF)), "MPI rank 1 has not the fields of rank 0, which are u, v"),
        (Fields(u=((4,), HALF), w=((4,), HALF)), "MPI rank 1 has not the fields of rank 0"),
        (
            Fields(u=((4,), HALF), v=((4,), HALF), w=((4,), HALF)),
            "MPI rank 1 has more fields than rank 0, which has u, v",
        ),
        (
            Fields(u=((4,), HALF), v=((5,), HALF)),
            r"'v' has the shape \(5,\) on MPI rank 1 and \(4,\) on rank 0",
        ),
        (
            Fields(u=((4,), HALF), v=((4,), np.zeros(1 << 15, "i8"))),
            "All ranks together send 262192 bytes at once; 1000 can be gathered",
        ),
    ],
)
def test_ranks_that_lay_out_different_fields_are_all_told(
    monkeypatch: pytest.MonkeyPatch, other: Fields, words: str
) -> None:
    monkeypatch.setattr("penstock.gathering.MOST_BYTES", 1000)

    def program(comm: ThreadedComm) -> None:
        first = Fields(u=((4,), HALF), v=((4,), HALF))
        host: Any = first if comm.Get_rank() == 0 else other
        gathering = Gathering(Ranks(comm, gathered=True), host)
        with pytest.raises(LayoutError, match=words):
            gathering.exchange()
        assert gathering.stale

    run_ranks(2, program)
