"""Steps on the way to a shard: alone from a slow solver, several in a message from a quick one."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from penstock import line as line_module
from penstock import wire
from penstock.arena import Arena
from penstock.buffers import Buffers
from penstock.layout import FieldSpec, whole
from penstock.line import Line
from penstock.shipment import Shipment
from penstock.spans import Spans
from penstock.wire import Header, Kind

U = FieldSpec("u", 0, (2, 3), np.dtype("float32"))
P = FieldSpec("p", 1, (), np.dtype("float64"))
STEP_BYTES = 6 * 4 + 8 + wire.STEP.itemsize
QUICK, OLD = line_module.QUICK_S, line_module.OLD_S


class Clock:
    """Stands where the module looks for `time`."""

    def __init__(self) -> None:
        self.now = 10.0

    def monotonic(self) -> float:
        return self.now


class Posted:
    """A sender that keeps what it is given, as bytes: the memory may be used again."""

    def __init__(self) -> None:
        self.messages: list[tuple[Header, list[bytes]]] = []
        self.memory: list[np.ndarray] = []
        self.give_back: Any = None

    def glance(self, now_s: float) -> None:
        """There are no answers."""

    def post(
        self,
        header: Header,
        payloads: list[np.ndarray],
        memory: Any = None,
        give_back: Any = None,
    ) -> None:
        self.messages.append((header, [p.tobytes() for p in payloads]))
        self.give_back, self.memory = give_back, payloads if memory is None else memory

    def steps(self) -> list[list[int]]:
        """Of each message."""
        return [[part.step for part, _ in self.parts(i)] for i in range(len(self.messages))]

    def parts(self, i: int) -> list[tuple[Header, list[bytes]]]:
        header, payloads = self.messages[i]
        if header.kind == Kind.PART:
            return [(header, payloads)]
        return [(part, [bytes(v) for v in values])
                for part, values in wire.parts_of(header, payloads)]  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(line_module, "time", clock)
    return clock


called_s: WeakKeyDictionary[Line, float] = WeakKeyDictionary()  # by its solver, at last
SHIPMENT = Shipment("step", [U, P], {"u": whole(U), "p": whole(P)})


def make(bunch_bytes: int, buffers: Buffers | None = None) -> tuple[Line, Posted]:
    def header(
        kind: Kind, entries: tuple[Any, ...] = (), step: int = 0, t: float = wire.NO_TIME
    ) -> Header:
        return Header(kind, campaign=3, step=step, t=t, fields=entries)

    posted = Posted()
    buffers = buffers or Buffers()
    line = Line(posted, header, buffers, Spans(buffers), bunch_bytes)  # type: ignore[arg-type]
    return line, posted


def put(line: Line, step: int) -> None:
    values = SHIPMENT.check({"u": np.full((2, 3), float(step)), "p": float(step)})
    call(line)
    line.put(SHIPMENT, values, step, step / 10, line_module.time.monotonic())


def call(line: Line) -> None:
    now_s = line_module.time.monotonic()
    called_s[line], before_s = now_s, called_s.get(line, now_s)
    line.glance(now_s, now_s - before_s)


def test_quick_steps_share_messages_that_hold_what_alone_they_would(clock: Clock) -> None:
    line, posted = make(4 * STEP_BYTES + 1)
    for step in range(10):
        put(line, step)
        clock.now += 1e-5
    line.flush()
    assert posted.steps() == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    parts = [part for i in range(4) for part in posted.parts(i)]
    for step, (header, (u, p)) in enumerate(parts):
        assert (header.kind, header.step, header.t) == (Kind.PART, step, step / 10)
        assert header.fields == SHIPMENT.table
        assert u == np.full(6, step, "<f4").tobytes()
        assert p == np.float64(step).tobytes()


def join(line: Line, step: int, **given: Any) -> bool:
    values = {"u": np.full((2, 3), float(step)), "p": np.array(float(step)), **given}
    bunch = line.bunch
    return bunch is not None and bunch.join(values, step, step / 10, line_module.time.monotonic())


def test_a_step_that_joins_a_bunch_is_as_one_that_is_put(clock: Clock) -> None:
    joined, put_one_by_one = make(5 * STEP_BYTES + 1), make(5 * STEP_BYTES + 1)
    for step in range(25):
        if not join(joined[0], step):
            put(joined[0], step)
        put(put_one_by_one[0], step)
        clock.now += 1e-5
    assert joined[1].messages == put_one_by_one[1].messages


def test_a_step_does_not_join_what_has_no_room_or_is_over(clock: Clock) -> None:
    line, posted = make(5 * STEP_BYTES + 1)
    assert not join(line, 0)
    put(line, 0)
    assert not join(line, 1)  # the first goes alone
    put(line, 1)
    assert [join(line, step) for step in range(2, 6)] == [True] * 3 + [False]  # it fills the bunch
    bunch = line.bunch
    line.flush()
    assert bunch is not None
    assert not bunch.join({"u": np.zeros((2, 3)), "p": np.zeros(())}, 5, 0.5, clock.now)
    put(line, 5)
    clock.now += 2 * QUICK
    assert not join(line, 6)
    assert posted.steps()[:2] == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    "given",
    [
        {"u": np.zeros((3, 2))},
        {"u": np.zeros(6)},
        {"u": np.zeros((1, 2, 3))},
        {"u": np.zeros((2, 3), complex)},
        {"u": np.zeros((2, 3), object)},
        {"u": np.ma.zeros((2, 3))},
        {"u": [[0.0] * 3] * 2},
        {"p": 1.0},
        {"q": np.zeros(())},
        {"p": None},
    ],
    ids=str,
)
def test_what_is_not_as_usual_does_not_join(clock: Clock, given: dict[str, Any]) -> None:
    line, _ = make(1 << 18)
    for step in range(2):
        put(line, step)
    assert not join(line, 2, **given)
    assert join(line, 2)


def test_a_slow_solver_sends_every_step_at_once(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(4):
        put(line, step)
        clock.now += 2 * QUICK
    assert [header.kind for header, _ in posted.messages] == [Kind.PART] * 4


def test_a_solver_that_becomes_slow_posts_what_was_kept_at_its_next_call(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(3):
        put(line, step)
    clock.now += 60.0
    put(line, 3)
    assert posted.steps() == [[0], [1, 2], [3]]


def test_a_solver_that_computes_between_bursts_keeps_its_steps_back_once(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for burst in range(10):
        for step in range(4):
            put(line, 4 * burst + step)
            clock.now += 1e-5
        clock.now += 1.0
    assert posted.steps() == [[0], [1, 2, 3], *([step] for step in range(4, 40))]


def test_a_rare_pause_of_a_quick_solver_is_forgotten(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(40_000):
        put(line, step)
        clock.now += 1.25 * OLD if step == 1000 else 1e-4
    assert max(len(steps) for steps in posted.steps()[-10:]) > 5
    alone = sum(len(steps) == 1 for steps in posted.steps())
    assert 20_000 < alone < 25_000  # until twenty-five times as much has passed


def test_a_wait_for_room_is_no_pause_of_the_solver(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(40):
        put(line, step)
        clock.now += 1e-5
        if step % 4 == 3:
            line.flush()
            clock.now += 1.0
            line.waited(1.0)
            called_s[line] = clock.now
    assert [len(steps) for steps in posted.steps()] == [1, 3, *[4] * 9]


@pytest.mark.parametrize("ready", [0.0, 1.0])
def test_a_solver_without_a_processor_is_not_slow(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, ready: float
) -> None:
    """ready: the share of its pauses for which the solver could have run."""
    monkeypatch.setattr(line_module, "kept_from_running_s", lambda: ready * clock.now)
    line, posted = make(1 << 18)
    for step in range(100):
        put(line, step)
        clock.now += 1e-5 if step % 5 else 2 * OLD
    alone = sum(len(steps) == 1 for steps in posted.steps())
    assert alone < 25 if ready else alone > 75


def test_no_step_grows_old_while_the_solver_calls_in(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(300):
        put(line, step)
        clock.now += 0.9 * QUICK
    ages = [len(steps) * 0.9 * QUICK for steps in posted.steps()]
    assert len(ages) > 10
    assert max(ages) <= 2 * OLD
    put(line, 300)
    clock.now += 2 * OLD
    call(line)
    assert posted.steps()[-1][-1] == 300


@pytest.mark.parametrize("bunch_bytes", [0, 2 * STEP_BYTES - 1])
def test_without_room_for_two_steps_each_goes_alone(clock: Clock, bunch_bytes: int) -> None:
    line, posted = make(bunch_bytes)
    for step in range(5):
        put(line, step)
    assert [header.kind for header, _ in posted.messages] == [Kind.PART] * 5


def test_the_memory_of_a_bunch_comes_back_as_a_whole(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(3):
        put(line, step)
    line.flush()
    whole = {id(array) for array in posted.memory}
    for array in posted.memory:
        posted.give_back(array)
    for step in range(3, 6):
        put(line, step)
    line.flush()
    assert posted.steps() == [[0], [1, 2], [3, 4, 5]]
    assert {id(array) for array in posted.memory} == whole


def test_what_is_dropped_is_never_posted_and_its_memory_is_used_again(clock: Clock) -> None:
    line, posted = make(1 << 18)
    for step in range(3):
        put(line, step)
    line.drop()
    line.drop()
    line.flush()
    assert posted.steps() == [[0]]
    arena = Arena(3 << 18)  # no room for more than two bunches
    line, posted = make(1 << 18, Buffers(arena))
    put(line, 0)
    for step in range(1, 50):
        put(line, step)
        line.drop()
    put(line, 50)
    line.flush()
    assert all(arena.offset(array) is not None for array in posted.memory)
    arena.close()


def test_a_large_step_that_lies_in_the_memory_of_the_stream_goes_alone(clock: Clock) -> None:
    spec = FieldSpec("u", 0, (line_module.ALONE_BYTES // 4,), np.dtype("float32"))
    shipment = Shipment("step", [spec], {"u": whole(spec)})
    buffers = Buffers()
    line, posted = make(1 << 21, buffers)
    spans = line._spans

    def put(values: np.ndarray, step: int) -> None:
        line.put(shipment, shipment.check({"u": values}), step, step / 10, clock.now)

    for step in range(4):
        values = spans.empty("u", spec.shape, spec.shape, spec.dtype)
        values[:] = step
        spans.sent({"u": values})
        put(values, step)
        (payload,) = posted.memory
        assert np.shares_memory(payload, values)
        assert posted.steps()[-1] == [step]
    put(values, 4)  # a steady state: on its way already, so that it would have to be copied
    put(values.copy(), 5)
    line.flush()
    assert posted.steps() == [[0], [1], [2], [3], [4, 5]]
