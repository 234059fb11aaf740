"""A simulation with several shards: no step stays behind on a line whose turn is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock import line, simulation
from penstock.buffers import Buffers
from penstock.errors import LayoutError
from penstock.layout import FieldSpec, whole
from penstock.shipment import Shipment
from penstock.simulation import Simulation
from penstock.wire import Header, Kind

U = FieldSpec("u", 0, (4,), np.dtype("float32"))


class Clock:
    """Stands where the modules look for `time`."""

    def __init__(self) -> None:
        self.now = 10.0

    def monotonic(self) -> float:
        return self.now


class Full(Exception):
    """There is no credit, and never will be."""


class Shard:
    """A sender whose shard has room for so many segments; keeps the steps of each message."""

    def __init__(self) -> None:
        self.messages: list[list[int]] = []
        self.refused: dict[int, str] = {}
        self.looked, self.segments = 0, 10**6

    def glance(self, now_s: float) -> None:
        self.looked += 1

    def granted(self, lease: int) -> int:
        return self.segments

    def flow(self) -> None:
        """There are no answers."""

    def wait(self, ready: Any, what: str) -> None:
        raise Full

    def has_room(self) -> bool:
        return True

    def has_much_room(self) -> bool:
        return True

    def announce(self, key: Any, header: Header, payloads: Any) -> None: ...

    def post(
        self, header: Header, payloads: Any, memory: Any = None, give_back: Any = None
    ) -> None:
        if header.kind == Kind.PART:
            self.messages.append([header.step])
        elif header.kind == Kind.BUNCH:
            self.messages.append(payloads[0]["step"].tolist())


class SlowShard(Shard):
    """Its window is full at every other step, and empties bit by bit."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.waited = 0, 0

    def has_room(self) -> bool:
        return self.free > 0

    def has_much_room(self) -> bool:
        return self.free > 1

    def wait(self, ready: Any, what: str) -> None:
        self.waited += 1
        while not ready():
            self.free += 1

    def post(self, header: Header, *more: Any, **others: Any) -> None:
        super().post(header, *more, **others)
        self.free -= header.kind == Kind.PART


class Outlet:
    """What a link gives a simulation."""

    def __init__(
        self, shards: int, segment_steps: int, every: int = 1, field: FieldSpec = U
    ) -> None:
        self.segment_steps, self.every, self.bunch_bytes = segment_steps, every, 1 << 18
        self.buffers, self.unasked = Buffers(), 0
        self.shards = [Shard() for _ in range(shards)]
        self._shipment = Shipment("step", [field], {"u": whole(field)})

    def shipment(self, fields: Any, when: str) -> Shipment:
        return self._shipment

    def step_shipment(self) -> Shipment | None:
        return self._shipment

    def senders(self, shards: tuple[str, ...]) -> Any:
        return self.shards

    def tell_plan(self, senders: Any) -> None: ...

    def anywhere(self, here: Callable[[], bool]) -> tuple[bool, int]:
        return here(), self.unasked

    def header(self, kind: Kind, assignment: Any) -> Header:
        return Header(kind, campaign=1)

    def finished(self, simulation: Simulation) -> None: ...


class Assignment:
    """Wants everything, or the segments in these ranges."""

    simulation = seed = lease = attempt = 1
    role = "train"
    shards = ("0", "1")
    parameters: dict[str, float] = {}

    def __init__(self, *wanted: tuple[int, int]) -> None:
        self.wanted = wanted or None

    def wants(self, segment: int) -> bool:
        return not self.wanted or any(a <= segment <= b for a, b in self.wanted)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(line, "time", clock)
    monkeypatch.setattr(simulation, "time", clock)
    return clock


def run(
    outlet: Outlet, steps: int, clock: Clock, seconds: Any, *wanted: tuple[int, int]
) -> Simulation:
    sim = Simulation(Assignment(*wanted), outlet)  # type: ignore[arg-type]
    for step in range(steps):
        sim.send(step + 0.5, u=np.zeros(4))
        clock.now += seconds(step)
    return sim


def test_a_solver_that_waits_goes_on_when_there_is_room_for_several(clock: Clock) -> None:
    outlet = Outlet(1, segment_steps=1)
    outlet.bunch_bytes = 0
    outlet.shards = [shard := SlowShard()]
    run(outlet, 10, clock, lambda step: 1e-5)
    assert shard.messages == [[step] for step in range(10)]
    assert shard.waited == 5


def test_a_shard_whose_turn_is_over_gets_its_steps_with_the_next_call(clock: Clock) -> None:
    outlet = Outlet(2, segment_steps=4)
    run(outlet, 6, clock, lambda step: 1e-5 if step < 4 else 600.0)
    assert [step for message in outlet.shards[0].messages for step in message] == [0, 1, 2, 3]


@pytest.mark.parametrize("every", [1, 3])
def test_steps_are_not_kept_while_others_are_not_wanted(clock: Clock, every: int) -> None:
    outlet = Outlet(1, segment_steps=4, every=every)
    last = 4 * every
    run(outlet, last + 2, clock, lambda step: 1e-5 if step < last else 600.0, (0, 0))
    assert [step for message in outlet.shards[0].messages for step in message] == [0, 1, 2, 3]
    assert outlet.shards[0].looked >= 2


@pytest.mark.parametrize("segment_steps", [1, 50])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_steps_share_messages_with_several_shards_too(
    clock: Clock, shards: int, segment_steps: int
) -> None:
    outlet = Outlet(shards, segment_steps)
    sim = run(outlet, 5000, clock, lambda step: 1e-4)
    sim.lay_out_anew()  # nothing is kept back any more
    assert sum(len(shard.messages) for shard in outlet.shards) < 500
    for at, shard in enumerate(outlet.shards):
        steps = [step for message in shard.messages for step in message]
        assert steps == [s for s in range(5000) if s // segment_steps % shards == at]


def test_no_step_goes_without_credit(clock: Clock) -> None:
    outlet = Outlet(3, segment_steps=2)
    for at, shard in enumerate(outlet.shards):
        shard.segments = 5 + at
    with pytest.raises(Full):
        run(outlet, 100, clock, lambda step: 1e-5)
    steps = sorted(s for shard in outlet.shards for message in shard.messages for s in message)
    assert steps == list(range(2 * 3 * 5))  # the first that lacks it is of the first shard


class Waiting(Shard):
    """Has no room; whoever waits for it looks a few times whether it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = 0

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        if not any(ready() for _ in range(3)):
            raise Full


class Refusing(Shard):
    """Has refused what came, as is known to whoever reads its answers."""

    def flow(self) -> None:
        self.refused[1] = "It is not finite."


def test_while_one_shard_has_no_room_the_others_are_heard(clock: Clock) -> None:
    """One that was restarted wants its steps again, and room elsewhere may depend on them."""
    outlet = Outlet(2, segment_steps=1)
    outlet.shards = [Waiting(), Refusing()]
    sim = run(outlet, 1, clock, lambda step: 0.0)
    assert sim.refusal == "It is not finite."


def test_a_line_whose_turn_is_over_is_neither_late_nor_old(clock: Clock) -> None:
    outlet = Outlet(2, segment_steps=300)
    ages: list[float] = []
    for shard in outlet.shards:
        post = shard.post

        def timed(header: Header, payloads: Any, *a: Any, post: Any = post, **b: Any) -> None:
            if header.kind == Kind.BUNCH:
                ages.append(clock.now - 10.0 - 1e-3 * payloads[0]["step"][0])
            post(header, payloads, *a, **b)

        shard.post = timed  # type: ignore[method-assign]
    run(outlet, 6000, clock, lambda step: 1e-3)
    assert max(ages) < line.OLD_S + 2e-3
    assert sum(len(shard.messages) for shard in outlet.shards) < 6000 / 40


def test_where_fields_are_learned_what_is_kept_back_leaves_under_its_layout(clock: Clock) -> None:
    outlet = Outlet(1, segment_steps=50)
    sim = Simulation(Assignment(), outlet)  # type: ignore[arg-type]
    for step in range(6):
        if step == 3:
            sim.lay_out_anew()
            assert outlet.shards[0].messages == [[0], [1, 2]]
        sim.send(step + 0.5, u=np.zeros(4))
        clock.now += 1e-5
    sim.lay_out_anew()
    assert outlet.shards[0].messages == [[0], [1, 2], [3, 4, 5]]


def test_what_is_kept_back_is_dropped_when_a_refusal_is_heard(clock: Clock) -> None:
    outlet = Outlet(1, segment_steps=50)
    sim = run(outlet, 6, clock, lambda step: 1e-5)
    before = list(outlet.shards[0].messages)
    outlet.shards[0].refused[1] = "not finite"
    clock.now += 1.0
    sim.send(9.0, u=np.zeros(4))
    sim.end()
    assert outlet.shards[0].messages == before
    assert sim.outcome == "refused"


@pytest.mark.parametrize(
    ("bunch_bytes", "field", "lies_in_the_stream"),
    [
        (0, U, True),
        (2 * (16 + 16), U, False),  # two steps share a message: a copy is the lesser evil
        (0, replace(U, crop=((1, 3),)), False),
        (0, replace(U, stride=(2,)), False),
    ],
)
def test_only_what_leaves_as_it_is_is_computed_in_the_memory_of_the_stream(
    bunch_bytes: int, field: FieldSpec, lies_in_the_stream: bool
) -> None:
    outlet = Outlet(2, segment_steps=1, field=field)
    outlet.bunch_bytes = bunch_bytes
    sim = Simulation(Assignment(), outlet)  # type: ignore[arg-type]
    u = sim.empty("u", 4)
    assert (u.shape, u.dtype) == ((4,), np.dtype("float32"))
    assert (sim.empty("u", 4) is u) == lies_in_the_stream
    u[:] = 1.0
    sim.send(0.0, u=u)
    assert u.flags.writeable != lies_in_the_stream
    assert not np.shares_memory(sim.empty("u", 4), u)  # an explicit scheme reads it now


@pytest.mark.parametrize(("every", "wanted"), [(2, []), (1, [(5, 5)])])
def test_a_step_that_is_not_sent_can_be_read_until_the_next_as_well(
    every: int, wanted: list[tuple[int, int]]
) -> None:
    outlet = Outlet(1, segment_steps=1, every=every)
    outlet.bunch_bytes = 0
    sim = Simulation(Assignment(*wanted), outlet)  # type: ignore[arg-type]
    before = np.zeros(4)
    for step in range(8):
        u = sim.empty("u", 4)
        np.add(before, 1, out=u)
        sim.send(float(step), u=u)
        assert (u == step + 1).all()
        before = u


def test_a_large_step_is_computed_in_the_memory_of_the_stream_even_where_bunches_have_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outlet = Outlet(1, segment_steps=1)
    sim = Simulation(Assignment(), outlet)  # type: ignore[arg-type]
    monkeypatch.setattr(simulation, "ALONE_BYTES", 16 + 1)
    assert sim.empty("u", 4) is not sim.empty("u", 4)
    monkeypatch.setattr(simulation, "ALONE_BYTES", 16)
    assert sim.empty("u", 4) is sim.empty("u", 4)


def test_a_simulation_that_was_refused_stays_so() -> None:
    outlet = Outlet(1, segment_steps=1)
    outlet.unasked = 3
    sim = Simulation(Assignment(), outlet)  # type: ignore[arg-type]
    assert not sim.cancelled
    outlet.shards[0].refused[1] = "no"
    assert [sim.cancelled for _ in range(9)] == [False] * 3 + [True] * 6


def test_what_is_over_gives_no_memory() -> None:
    sim = Simulation(Assignment(), Outlet(1, segment_steps=1))  # type: ignore[arg-type]
    sim.end()
    with pytest.raises(LayoutError, match="has ended"):
        sim.empty("u", 4)
