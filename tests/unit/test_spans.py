"""Memory of the stream that the solver writes: whose it is, and when it is used again."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.buffers import Buffers
from penstock.layout import FieldSpec, whole
from penstock.shipment import Shipment
from penstock.spans import Spans

F4 = np.dtype("float32")


def ask(spans: Spans, *shape: int) -> np.ndarray:
    return spans.empty("u", shape or (4, 3), (4, 3), F4)


@given(st.lists(st.sampled_from(["step", "again", "acknowledged", "dropped"]), max_size=60))
def test_nothing_that_somebody_reads_is_written(happens: list[str]) -> None:
    spans = Spans(Buffers())
    on_its_way: deque[tuple[np.ndarray, int]] = deque()
    last: tuple[np.ndarray, int] | None = None
    for number, what in enumerate(happens):
        if what == "acknowledged" and on_its_way:
            memory, value = on_its_way.popleft()
            assert (memory == value).all()
            spans.give_back(memory)
        elif what in ("step", "dropped"):
            array = ask(spans)
            if last is not None:
                assert (last[0] == last[1]).all()  # an explicit scheme reads it now
            array[:] = number
            spans.sent({"u": array})
            last = (array, number)
            if what == "step":
                claimed = spans.claim("u", array)
                assert claimed is not None
                on_its_way.append((claimed, number))
        elif what == "again" and last is not None:  # the same step once more, as a steady state
            again = spans.claim("u", last[0])
            away = any(np.shares_memory(each, last[0]) for each, _ in on_its_way)
            assert (again is None) == away  # it is copied then
            if again is not None:
                on_its_way.append((again, last[1]))
        assert all((memory == value).all() for memory, value in on_its_way)
    assert last is None or (last[0] == last[1]).all()


def test_a_solver_has_two_and_those_on_their_way() -> None:
    buffers = Buffers()
    spans = Spans(buffers)
    seen = set()
    for _ in range(10):
        array = ask(spans)
        assert ask(spans) is array  # not a second one
        seen.add(array.ctypes.data)
        spans.sent({"u": array})
        memory = spans.claim("u", array)
        assert memory is not None
        spans.give_back(memory)
    assert len(seen) == 2


def test_what_was_sent_is_read_only() -> None:
    spans = Spans(Buffers())
    array = ask(spans)
    array[:] = 1.0
    spans.sent({"u": array})
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 2.0
    ask(spans)[:] = 2.0


def test_only_the_memory_itself_is_claimed() -> None:
    spans = Spans(Buffers())
    array = ask(spans)
    for other in (np.ones((4, 3), F4), array.astype("f8"), 1.0, None):
        spans.sent({"u": other})
        spans.sent({"v": array})
        assert ask(spans) is array
    spans.sent({"u": array.reshape(12)})
    assert spans.claim("v", array) is None
    assert spans.claim("u", np.ones((4, 3), F4)) is None
    memory = spans.claim("u", array)
    assert memory is not None
    assert np.shares_memory(memory, array)
    assert spans.claim("u", array) is None  # it is on its way


class Tensor:
    """As one of PyTorch."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._array


@pytest.mark.parametrize("view", [np.transpose, lambda a: a[:, ::-1], np.ma.asarray, Tensor])
def test_what_lies_in_the_memory_some_other_way_is_copied_and_can_be_read(view: Any) -> None:
    spans = Spans(Buffers())
    array = ask(spans)
    spans.sent({"u": view(array)})
    assert not np.shares_memory(ask(spans), array)
    assert not array.flags.writeable


def test_what_was_sent_before_can_be_sent_as_another_field_with_the_next() -> None:
    fields = {name: FieldSpec(name, i, (4, 3), F4) for i, name in enumerate(("q", "T", "T_old"))}
    shipment = Shipment("step", list(fields.values()), {n: whole(f) for n, f in fields.items()})
    spans = Spans(Buffers())
    before = np.zeros((4, 3), F4)
    for step in range(1, 6):
        new = spans.empty("T", (4, 3), (4, 3), F4)
        new[:] = step
        given = {"q": np.full((4, 3), 7, F4), "T": new, "T_old": before}
        spans.sent(given)
        payloads = shipment.payloads(shipment.check(given), spans)
        assert [float(p[0, 0]) for p in payloads] == [7, step, step - 1]
        for payload in payloads:
            spans.give_back(payload)  # acknowledged at once
        before = new


def test_what_was_never_sent_is_not_written_once_it_is_left() -> None:
    spans = Spans(Buffers())
    first, flat = ask(spans), ask(spans, 12)
    spans.empty("u", (5, 3), (5, 3), F4)  # another layout
    unsent = ask(spans)
    spans.close()
    for array in (first, flat, unsent):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1.0


def test_of_a_step_that_cannot_be_packed_nothing_is_lost() -> None:
    fields = {name: FieldSpec(name, i, (4, 3), F4) for i, name in enumerate("uv")}
    shipment = Shipment("step", list(fields.values()), {n: whole(f) for n, f in fields.items()})
    buffers = Buffers()
    spans = Spans(buffers)
    u = ask(spans)
    spans.sent({"u": u})
    large = np.full((4, 3), 1e300)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        shipment.payloads([u, large], spans)
    claimed = spans.claim("u", u)
    assert claimed is not None
    assert np.shares_memory(claimed, u)


def test_a_shape_of_the_solver_is_the_same_memory_and_another_layout_is_not() -> None:
    spans = Spans(Buffers())
    array = ask(spans)
    flat = ask(spans, 4, 1, 3)
    assert flat.shape == (4, 1, 3)
    assert np.shares_memory(flat, array)
    larger = spans.empty("u", (5, 3), (5, 3), F4)
    assert not np.shares_memory(larger, array)


def test_at_the_end_all_of_it_is_used_again() -> None:
    buffers = Buffers()
    spans = Spans(buffers)
    sent = ask(spans)
    spans.sent({"u": sent})
    memory = spans.claim("u", sent)
    assert memory is not None
    unsent = ask(spans)
    spans.close()
    assert np.shares_memory(buffers.take((4, 3), F4), unsent)
    assert not np.shares_memory(buffers.take((4, 3), F4), sent)  # still on its way
    spans.give_back(memory)
    assert buffers.take((4, 3), F4) is memory
