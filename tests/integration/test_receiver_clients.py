"""Real clients on a real receiver: any number of ranks, stopped and killed receivers, links."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome
from threaded_comm import ThreadedComm, run_ranks

import penstock
from penstock import link as links
from penstock import sender as senders
from penstock.arena import Arena
from penstock.errors import LayoutError
from penstock.wire import OFFER
from penstock_server.slab import COMMITTED, Slab

pytestmark = pytest.mark.timeout(60)
SHAPE = (8, 6)


def content(simulation: int, step: int) -> np.ndarray:
    return (1000 * simulation + step + np.arange(48) / 64).reshape(SHAPE)


class Waiting(ScriptedCoordinator):
    """Like the real one: as long as a simulation is not confirmed, a worker may be needed again."""

    expected: frozenset[int] = frozenset()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        leaving = request.get("leaving")
        if request["kind"] == "next" and not self.assignments and not leaving:
            self.requests.append(request)
            over = self.delivered >= self.expected
            return {"kind": "over"} if over else {"kind": "wait", "retry_s": 0.05}
        return super()._answer(request)


class Stage:
    """A coordinator and its receivers."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self.coordinator = Waiting({}, [])
        self.coordinator.start()
        self.receivers: list[ReceiverProcess] = []

    def begin(
        self,
        simulations: list[int],
        shards: int = 1,
        bunch_bytes: int = 0,
        shared_memory: bool = False,
        **settings: Any,
    ) -> None:
        coordinator, names = self.coordinator, [str(i) for i in range(shards)]
        for name in names:
            self.receivers.append(
                ReceiverProcess(self._folder, coordinator.address, name, **settings)
            )
        coordinator.assignments = [assignment(s, names) for s in simulations]
        coordinator.expected = frozenset(simulations)
        coordinator.welcome = welcome(
            self.receivers, bunch_bytes=bunch_bytes, shared_memory=shared_memory
        )
        wait_for(lambda: len(coordinator.reports) == shards, what="the receivers")
        self._patch.setenv("PENSTOCK_COORDINATOR", coordinator.address)
        self._patch.setenv("PENSTOCK_WORKER", "w0")

    def delivered(self) -> None:
        expected = self.coordinator.expected
        wait_for(lambda: self.coordinator.delivered >= expected, what="the delivery")

    def counters(self, shard: str = "0") -> dict[str, float]:
        counters: dict[str, float] = self.coordinator.reports[shard]["counters"]
        return counters

    def stored(self, shard: int = 0) -> dict[tuple[int, int], np.ndarray]:
        """(simulation, step) -> field, of everything in the slab; segments of one step."""
        slab = Slab.attach(Path(self.receivers[shard].settings.folder))
        slots = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
        keys = [(int(d["simulation"]), int(d["segment"])) for d in slab.descriptor[slots]]
        return {key: slab.fields["u"][slot, 0].copy() for key, slot in zip(keys, slots)}

    def close(self) -> None:
        for receiver in self.receivers:
            receiver.stop()
        self.coordinator.stop()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.close()


def owned_rows(rank: int, size: int) -> Any:
    cuts = np.linspace(0, SHAPE[0], size + 1).astype(int)
    return (slice(int(cuts[rank]), int(cuts[rank + 1])), slice(None))


def owned_columns(rank: int, size: int) -> Any:
    cuts = np.linspace(0, SHAPE[1], size + 1).astype(int)
    return (slice(None), slice(int(cuts[rank]), int(cuts[rank + 1])))


def owned_scattered(rank: int, size: int) -> Any:
    flat = np.random.default_rng(4).permutation(48)
    return np.array_split(flat, size)[rank]


def send_all(comm: ThreadedComm, owned: Any, steps: int = 5) -> None:
    """A solver on one rank of several."""
    where = owned(comm.Get_rank(), comm.Get_size())
    with penstock.connect(comm) as link:
        link.layout("u", global_shape=SHAPE, owned=where)
        for sim in link.simulations():
            for step in range(steps):
                field = content(sim.id, step)
                part = field.reshape(-1)[where] if isinstance(where, np.ndarray) else field[where]
                sim.send(0.1 * step, u=part)


@pytest.mark.parametrize("bunch_bytes", [0, 600])
@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("owned", [owned_rows, owned_columns, owned_scattered])
def test_a_simulation_arrives_equal_from_one_two_and_four_parts(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    owned: Any,
    bunch_bytes: int,
    shared_memory: bool,
) -> None:
    monkeypatch.setattr(senders, "_LENT_BYTES", 1)
    stage.begin([0, 1, 2], bunch_bytes=bunch_bytes, shared_memory=shared_memory)
    for i, size in enumerate((1, 2, 4)):
        monkeypatch.setenv("PENSTOCK_WORKER", f"w{size}")
        stage.coordinator.assignments = [assignment(i, ["0"], parameters={"a": 1.0, "b": 2.0})]
        stage.coordinator.expected = frozenset(range(i + 1))
        run_ranks(size, lambda comm: send_all(comm, owned))
    stored = stage.stored()
    assert sorted(stored) == [(s, k) for s in range(3) for k in range(5)]
    for (simulation, step), field in stored.items():
        np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))


@pytest.mark.parametrize("bunch_bytes", [0, 1 << 18])
@pytest.mark.parametrize("shared_memory", [False, True])
def test_parts_over_two_shards_and_a_killed_receiver_arrive_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, bunch_bytes: int, shared_memory: bool
) -> None:
    monkeypatch.setattr(senders, "_LENT_BYTES", 1)
    stage.begin(list(range(6)), shards=2, bunch_bytes=bunch_bytes, shared_memory=shared_memory)
    first = stage.receivers[0]

    def kill() -> None:
        for _ in range(2):
            seen = stage.counters().get("admitted", 0)
            wait_for(lambda: stage.counters().get("admitted", 0) != seen, what="progress")  # noqa: B023
            first.kill()
            first.start()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run_ranks(2, lambda comm: send_all(comm, owned_rows, steps=9))
    killer.join(20)
    stage.delivered()
    both = [stage.stored(0), stage.stored(1)]
    keys = [{(s, k) for s in range(6) for k in range(9) if k % 2 == i} for i in range(2)]
    assert [set(stored) for stored in both] == keys
    for stored in both:
        for (simulation, step), field in stored.items():
            np.testing.assert_array_equal(field, content(simulation, step).astype("f4"))


def test_large_steps_pass_through_shared_memory_and_small_ones_do_not(stage: Stage) -> None:
    stage.begin([0], shared_memory=True, fields={"u": {"shape": [40, 48], "dtype": "float32"}})
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(20):
                sim.send(float(step), u=np.full((40, 48), step))
    stage.delivered()
    wait_for(lambda: stage.counters().get("lent_bytes", 0) > 0, what="lent bytes")
    sent = 20 * 40 * 48 * 4
    assert sent / 2 < stage.counters()["lent_bytes"] <= sent
    for (_, step), field in stage.stored().items():
        assert (field == step).all()


@pytest.mark.parametrize("wrong", ["host", "token"])
def test_memory_that_the_shard_cannot_have_is_done_without(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """As from another host or container, whose process numbers mean something else here."""
    arena = Arena(1 << 20)
    pid, number, nothing, size, token = OFFER.unpack(arena.offer)
    other = 1 if wrong == "host" else pid
    arena.offer = OFFER.pack(other, number, nothing, size, token[::-1])
    monkeypatch.setattr(links, "make_arena", lambda _: arena)
    field = {"shape": [40, 48], "dtype": "float32"}
    stage.begin([0], shared_memory=True, fields={"u": field})
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(20):
                sim.send(float(step), u=np.full((40, 48), step))
    stage.delivered()
    wait_for(lambda: stage.counters().get("bytes", 0) >= 20 * 40 * 48 * 4, what="all bytes")
    assert stage.counters().get("lent_bytes", 0) == 0
    for (_, step), values in stage.stored().items():
        assert (values == step).all()


def test_the_inputs_of_many_simulations_leave_the_lent_memory_to_the_steps(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = Arena(40_000)  # nine steps, or inputs
    monkeypatch.setattr(links, "make_arena", lambda _: arena)
    field = {"shape": [32, 32], "dtype": "float32"}
    simulations = list(range(12))
    stage.begin(
        simulations, shared_memory=True, fields={"u": field}, inputs={"k": field},
        order=["u", "k"], rows=20,
    )  # fmt: skip
    with penstock.connect() as link:
        for sim in link.simulations():
            sim.inputs(k=np.full((32, 32), sim.id))
            sim.send(0.0, u=np.full((32, 32), sim.id))
    stage.delivered()
    assert arena.allocate(4096) is not None
    wait_for(lambda: stage.counters().get("lent_bytes", 0) > 0, what="lent bytes")


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_scheme_that_computes_in_the_memory_of_the_stream_arrives_as_it_was(
    stage: Stage, shared_memory: bool
) -> None:
    """Each step is made of the one before, which was sent; two shards, one killed twice."""
    n, steps = 4096, 12
    field = {"shape": [n, 6], "dtype": "float32"}
    stage.begin(
        [0, 1], shards=2, bunch_bytes=1 << 16, shared_memory=shared_memory, fields={"u": field}
    )
    addresses = set()
    with penstock.connect() as link:
        for sim in link.simulations():
            before = np.full((n, 6), 100 * sim.id, "f4")
            for step in range(steps):
                u = sim.empty("u", (n, 6))
                addresses.add(u.ctypes.data)
                np.add(before, 1, out=u)
                sim.send(float(step), u=u)
                before = u
                if step in (4, 8) and sim.id == 0:
                    stage.receivers[0].kill()
                    stage.receivers[0].start()
    stage.delivered()
    assert len(addresses) < 2 * steps  # its memory was used again
    for shard in range(2):
        stored = stage.stored(shard)
        assert set(stored) == {(s, k) for s in (0, 1) for k in range(steps) if k % 2 == shard}
        for (simulation, step), values in stored.items():
            assert (values == 100 * simulation + step + 1).all()


def test_a_receiver_killed_after_the_last_message_still_confirms_it(stage: Stage) -> None:
    """Nothing else is sent, so the client has to ask for the acknowledgement by itself."""
    stage.begin([0])
    receiver = stage.receivers[0]
    ends: list[Any] = []

    def solver() -> None:
        with penstock.connect() as link:
            for sim in link.simulations():
                for step in range(5):
                    sim.send(0.1 * step, u=content(sim.id, step))
                os.kill(receiver.process.pid, signal.SIGSTOP)  # it will never read what follows
                sim.end()
                receiver.kill()
                receiver.start()
        ends.append(True)

    thread = threading.Thread(target=solver, daemon=True)
    thread.start()
    stage.delivered()
    thread.join(20)
    assert ends
    assert len(stage.stored()) == 5


def test_a_receiver_that_is_stopped_for_a_while_is_waited_for(stage: Stage) -> None:
    stage.begin([0, 1])
    process = stage.receivers[0].process
    wakers = []
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(8):
                if step == 3:
                    os.kill(process.pid, signal.SIGSTOP)
                    waker = threading.Timer(1.5, os.kill, (process.pid, signal.SIGCONT))
                    waker.start()
                    wakers.append(waker)
                sim.send(0.1 * step, u=content(sim.id, step))
    stage.delivered()
    for waker in wakers:
        waker.join()
    assert sorted(stage.stored()) == [(s, k) for s in range(2) for k in range(8)]
    assert stage.counters().get("refused", 0) == 0


def test_two_links_in_one_process_run_side_by_side(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.begin([0, 1, 2, 3])
    links = []
    for worker in ("w0", "w1"):
        monkeypatch.setenv("PENSTOCK_WORKER", worker)
        links.append(penstock.connect())
    sims = [link.simulation() for link in links]
    while any(sims):
        for step in range(4):
            for sim in sims:
                if sim is not None:
                    sim.send(0.1 * step, u=content(sim.id, step))
        for sim in sims:
            if sim is not None:
                sim.end()
        stage.coordinator.expected = frozenset()  # nobody has to wait for the other's last one
        sims = [link.simulation() for link in links]
    for link in links:
        link.close()
        link.close()
    stage.coordinator.expected = frozenset(range(4))
    stage.delivered()
    assert sorted(stage.stored()) == [(s, k) for s in range(4) for k in range(4)]


def test_closing_twice_and_in_the_middle_of_a_simulation_ends_it(stage: Stage) -> None:
    stage.begin([0])
    link = penstock.connect()
    sim = link.simulation()
    assert sim is not None
    sim.send(0.0, u=content(0, 0))
    link.close()
    link.close()
    stage.delivered()
    last = stage.coordinator.requests[-1]
    assert (last["kind"], last["leaving"], last["previous"]["steps"]) == ("next", True, 1)
    with pytest.raises(LayoutError, match="it takes no more steps"):
        sim.send(0.1, u=content(0, 1))


def test_a_bad_value_on_one_rank_cancels_the_simulation_on_all(stage: Stage) -> None:
    stage.begin([0, 1], shards=2)
    stage.coordinator.expected = frozenset([1])
    cancelled: list[tuple[int, int]] = []

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        rows = owned_rows(rank, 2)
        with penstock.connect(comm) as link:
            link.layout("u", global_shape=SHAPE, owned=rows)
            for sim in link.simulations():
                for step in range(400 if sim.id == 0 else 6):
                    field = content(sim.id, step)[rows]
                    if (sim.id, step, rank) == (0, 3, 1):
                        field[0, 0] = np.inf
                    if sim.cancelled:
                        cancelled.append((sim.id, rank))
                        break
                    if step < 90:
                        sim.send(0.1 * step, u=field)
                    else:
                        time.sleep(0.002)

    run_ranks(2, program)
    stage.delivered()
    assert sorted(cancelled) == [(0, 0), (0, 1)]
    wait_for(lambda: bool(stage.coordinator.refused), what="the refusal")
    kinds = {(r["simulation"], r["kind"]) for r in stage.coordinator.refused}
    assert kinds == {(0, "nan")}
    asked = stage.coordinator.requests
    outcomes = {p["simulation"]: p["outcome"] for r in asked if (p := r.get("previous"))}
    assert outcomes == {0: "refused", 1: "ended"}


def test_input_fields_come_in_parts_and_stay_with_their_simulation(stage: Stage) -> None:
    inputs = {"k": {"shape": [48], "dtype": "float64"}}
    stage.begin([0, 1], inputs=inputs, order=["u", "k"], rows=8)

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        rows, flat = owned_rows(rank, 3), np.arange(48)[rank::3]
        with penstock.connect(comm) as link:
            link.layout("u", global_shape=SHAPE, owned=rows)
            link.layout("k", global_shape=(48,), owned=flat)
            for sim in link.simulations():
                sim.inputs(k=sim.id + flat / 7)
                for step in range(3):
                    sim.send(0.1 * step, u=content(sim.id, step)[rows])

    run_ranks(3, program)
    stage.delivered()
    slab = Slab.attach(Path(stage.receivers[0].settings.folder))
    for row in slab.descriptor[slab.descriptor["state"] == COMMITTED]:
        expected = int(row["simulation"]) + np.arange(48) / 7
        np.testing.assert_array_equal(slab.inputs["k"][row["row"]], expected)


def test_steps_without_the_inputs_of_one_rank_are_refused(stage: Stage) -> None:
    inputs = {"k": {"shape": [4], "dtype": "float64"}}
    stage.begin([0], inputs=inputs, order=["u", "k"], rows=8)
    stage.coordinator.expected = frozenset()

    def program(comm: ThreadedComm) -> None:
        rank = comm.Get_rank()
        with penstock.connect(comm) as link:
            link.layout("u", global_shape=SHAPE, owned=owned_rows(rank, 2))
            link.layout("k", global_shape=(4,), owned=(slice(2 * rank, 2 * rank + 2),))
            for sim in link.simulations():
                if rank == 0:
                    sim.inputs(k=np.zeros(2))
                for step in range(3):
                    sim.send(0.1 * step, u=content(sim.id, step)[owned_rows(rank, 2)])

    run_ranks(2, program)
    wait_for(lambda: bool(stage.coordinator.refused), what="the refusal")
    assert stage.coordinator.refused[0]["kind"] == "inputs"
    assert (
        "Steps of part 1 came before the input fields k" in stage.coordinator.refused[0]["reason"]
    )
