"""What a dispenser and its rank send each other comes out as it went in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.feed_messages import (
    Draw,
    Group,
    Report,
    pack_cancelled,
    pack_group,
    pack_report,
    unpack_cancelled,
    unpack_group,
    unpack_report,
)

NUMBERS = st.integers(0, 2**64 - 1)
IDS = st.integers(0, 2**63 - 1)
GENERATIONS = st.integers(0, 2**32 - 1)


@st.composite
def slots(draw: st.DrawFn, n: int) -> tuple[np.ndarray, np.ndarray]:
    ids = draw(st.lists(IDS, min_size=n, max_size=n))
    generations = draw(st.lists(GENERATIONS, min_size=n, max_size=n))
    return np.array(ids, np.int64), np.array(generations, np.uint32)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    size, n_batches = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    n_first = draw(st.lists(st.integers(0, size), min_size=n_batches, max_size=n_batches))
    ids, generations = draw(slots(size * n_batches))
    return Group(draw(NUMBERS), draw(NUMBERS), size, ids, generations, n_first)


@st.composite
def draws(draw: st.DrawFn) -> list[Draw]:
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    return [Draw(draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), *draw(slots(n))) for n in sizes]


@given(groups())
def test_a_group_of_batches(sent: Group) -> None:
    kind, frame = pack_group(sent)
    came = unpack_group(frame)
    assert kind == b"B"
    assert came[:3] == sent[:3]
    np.testing.assert_array_equal(came.samples, sent.samples)
    np.testing.assert_array_equal(came.generations, sent.generations)
    assert came.n_first == sent.n_first


@given(NUMBERS, NUMBERS, draws())
def test_a_report_of_draws(number: int, after: int, sent: list[Draw]) -> None:
    kind, frame = pack_report(Report(number, after, sent))
    report = unpack_report(frame)
    came = report.draws
    assert kind == b"T"
    assert report[:2] == (number, after)
    assert [each[:3] for each in came] == [each[:3] for each in sent]
    for mine, theirs in zip(came, sent, strict=True):
        np.testing.assert_array_equal(mine.samples, theirs.samples)
        np.testing.assert_array_equal(mine.generations, theirs.generations)


@given(NUMBERS, NUMBERS)
def test_a_batch_that_was_not_taken(epoch: int, number: int) -> None:
    kind, frame = pack_cancelled(epoch, number)
    assert kind == b"C"
    assert unpack_cancelled(frame) == (epoch, number)
