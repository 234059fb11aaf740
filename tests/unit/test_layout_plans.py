"""Plans as a shard reads them: gaps and overlaps are found, nonsense is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.plans import PlanError, Target, covers, read_target


def box(shape: tuple[int, ...], start: list[int], extent: list[int]) -> Target:
    return read_target("u", shape, plan(0, shape, [*start, *extent]))


def indices(shape: tuple[int, ...], flat: list[int]) -> Target:
    return read_target("u", shape, plan(1, shape, flat))


def plan(kind: int, shape: tuple[int, ...], rest: list[int]) -> bytes:
    return np.array([kind, len(shape), *shape, *rest], dtype="<i8").tobytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_covers_agrees_with_counting_how_often_each_value_is_owned(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    size = int(np.prod(shape))
    count = np.zeros(shape, dtype=int)
    targets = []
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            start = [data.draw(st.integers(0, n)) for n in shape]
            extent = [data.draw(st.integers(0, n - a)) for a, n in zip(start, shape)]
            targets.append(box(shape, start, extent))
            count[tuple(slice(a, a + n) for a, n in zip(start, extent))] += 1
        else:
            flat = data.draw(st.lists(st.integers(0, size - 1), unique=True))
            targets.append(indices(shape, flat))
            count.reshape(-1)[flat] += 1
    why = covers(shape, targets)
    if (count > 1).any():
        assert why is not None
        assert "overlaps" in why
    elif (count == 0).any():
        assert why == f"{(count == 0).sum()} of {size} values belong to no part"
    else:
        assert why is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_contiguous_box_is_found_and_no_other(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    extent = [data.draw(st.integers(1, n - a)) for a, n in zip(start, shape)]
    target = box(shape, start, extent)
    flat = np.arange(np.prod(shape)).reshape(shape)[target.where].reshape(-1)
    contiguous = bool(np.array_equal(flat, np.arange(flat[0], flat[0] + len(flat))))
    assert (target.first is not None) == contiguous
    if contiguous:
        assert target.first == flat[0]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_random_bytes_are_refused_or_fit(payload: bytes) -> None:
    try:
        target = read_target("u", (3, 4), payload)
    except PlanError:
        return
    assert covers((3, 4), [target]) is None or target.n < 12


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8), st.integers(0, 1))
def test_random_numbers_after_a_good_head_are_refused_or_fit(rest: list[int], kind: int) -> None:
    try:
        target = read_target("u", (3, 4), plan(kind, (3, 4), rest))
    except PlanError:
        return
    field = np.zeros((3, 4))
    target.scatter(np.ones(target.n), field)
    assert field.sum() == target.n


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "truncated: 0 bytes"),
        (bytes(20), "truncated: 20 bytes"),
        (plan(0, (3, 5), [0, 0, 3, 5]), r"has the shape \(3, 5\); the campaign expects \(3, 4\)"),
        (plan(0, (12,), [0, 12]), "has 1 axes; 2 are declared"),
        (plan(0, (3, 4), [0, 0, 3]), "has 3 bounds"),
        (plan(0, (3, 4), [1, 0, 3, 4]), r"has a box at \[1, 0\] of \[3, 4\]"),
        (plan(0, (3, 4), [-1, 0, 1, 1]), "has a box at"),
        (plan(1, (3, 4), [0, 12]), r"indices outside 0\.\.11"),
        (plan(1, (3, 4), [-1]), r"indices outside 0\.\.11"),
        (plan(1, (3, 4), [5, 5]), "names an index twice"),
        (plan(2, (3, 4), []), "is of kind 2"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(payload: bytes, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        read_target("u", (3, 4), payload)
