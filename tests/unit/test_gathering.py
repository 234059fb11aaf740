"""Batches gathered out of a slab: what they hold, and that no torn sample comes out of it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from slab_writer import being_rewritten, group, make

from penstock_server.gathering import Gatherer, Promise
from penstock_server.slab import Slab, SlabSpec
from penstock_server.work_ahead import WorkAhead
from penstock_surrogates.batch import Batch

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("steps", "window", "stride"),
    [(1, 1, 1), (4, 1, 1), (4, 1, 9), (4, 3, 1), (4, 4, 1), (6, 2, 3), (7, 3, 2), (7, 3, 3)],
)
def test_a_group_gives_the_windows_of_its_samples(
    tmp_path: Path, steps: int, window: int, stride: int
) -> None:
    writer = make(tmp_path, steps, window, stride=stride)
    slab, windows = writer.slab, writer.slab.spec.windows
    samples = np.random.default_rng(0).permutation(12 * windows)[:12].astype(np.int64)
    gatherer = Gatherer(slab)
    promises = gatherer.promises(group(slab, samples, 4))
    assert [(p.epoch, p.number, p.n_first) for p in promises] == [(1, 7, 0), (1, 8, 1), (1, 9, 2)]
    for promise, own in zip(promises, samples.reshape(3, 4), strict=True):
        batch = gatherer.gather(promise, 1)
        assert batch is not None
        number = 100 + torch.from_numpy(own // windows)
        first = number * steps + torch.from_numpy(own % windows)
        expected = first[:, None] + stride * torch.arange(window)
        assert torch.equal(batch.simulation, number)
        assert torch.equal(batch.step, expected)
        assert torch.equal(batch.t, expected.double())
        assert torch.equal(batch.parameters, number[:, None].expand(4, 2).double())
        assert torch.equal(batch.fields["u"], expected[..., None, None].expand(-1, -1, 5, 2))
        assert torch.equal(batch.inputs["k"], number[:, None].expand(4, 5))


def test_without_parameters_there_are_none(tmp_path: Path) -> None:
    spec = SlabSpec(2, 1, 1, 0, {"u": ((3,), "float32")}, {}, 0, 1)
    slab = Slab.create(tmp_path / "slab", spec)
    gatherer = Gatherer(slab)
    batch = gatherer.gather(gatherer.promises(group(slab, np.array([1, 0]), 2))[0], 1)
    assert batch is not None
    assert batch.parameters.shape == (2, 0)


def test_a_slot_that_was_given_away_voids_its_batch_alone(tmp_path: Path) -> None:
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    first, second = gatherer.promises(group(writer.slab, np.arange(8), 4))
    writer.write(5, 900)
    assert gatherer.gather(first, 1) is not None
    assert gatherer.gather(second, 1) is None


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("ahead", [False, True])
def test_no_torn_sample_comes_out_of_slots_that_are_written(
    tmp_path: Path, hasty: None, ahead: bool
) -> None:
    writer = make(tmp_path, 2, 2, n_slots=8, values=3000)
    rng, found = np.random.default_rng(1), {"whole": 0, "torn": 0}
    gatherer = Gatherer(writer.slab)
    worker = WorkAhead(gatherer, lambda: None) if ahead else None
    with being_rewritten(writer):
        while min(found.values()) < 40:
            samples = np.array(rng.choice(8, 2, replace=False), np.int64)
            promised = group(writer.slab, samples, 1)
            if (promised.generations % 2).any():  # a receiver promises what is committed
                continue
            for promise in gatherer.promises(promised):
                if worker is not None:
                    worker.prepare([promise], 1)
                batch = (worker or gatherer).gather(promise, 1)
                found["torn" if batch is None else "whole"] += 1
                if batch is not None:
                    number = int(batch.simulation[0])
                    steps = torch.tensor([2 * number, 2 * number + 1])
                    assert torch.equal(batch.step[0], steps)
                    assert torch.equal(batch.t[0], steps.double())
                    assert (batch.fields["u"][0] == steps[:, None, None]).all()
                    assert (batch.parameters == number).all()
                    assert (batch.inputs["k"] == number).all()
    if worker is not None:
        worker.close()


def test_an_error_of_the_thread_is_raised_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    worker = WorkAhead(gatherer, lambda: None)
    (promise,) = gatherer.promises(group(writer.slab, np.arange(4), 4))
    promise.index = torch.tensor([10**6])
    worker.prepare([promise], 1)
    with pytest.raises(IndexError):
        worker.gather(promise, 1)
    worker.close()
    worker.close()


def test_the_thread_tends_after_every_batch_and_when_it_is_told_to(tmp_path: Path) -> None:
    tended: SimpleQueue[None] = SimpleQueue()
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    worker = WorkAhead(gatherer, lambda: tended.put(None))
    (promise,) = gatherer.promises(group(writer.slab, np.arange(4), 4))
    worker.prepare([promise], 1)
    assert worker.gather(promise, 1) is promise.batch
    tended.get(timeout=10)
    worker.turn()
    tended.get(timeout=10)
    worker.close()


def test_a_promise_that_became_void_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    worker = WorkAhead(gatherer, lambda: None)
    void, unprepared, wanted = gatherer.promises(group(writer.slab, np.arange(6), 2))
    worker.prepare([void], 1)
    batch = worker.gather(unprepared, 1)
    assert batch is not None and batch.simulation.tolist() == [102, 103]
    worker.prepare([wanted], 2)
    batch = worker.gather(wanted, 2)
    assert batch is not None and batch.simulation.tolist() == [104, 105]
    worker.close()


@pytest.mark.parametrize(
    ("batch_size", "promised", "at_once"), [(1, 6, 4), (1, 3, 2), (1, 1, 1), (10**6, 6, 1)]
)
def test_the_thread_is_asked_for_several_small_batches_at_once(
    tmp_path: Path, batch_size: int, promised: int, at_once: int
) -> None:
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    gathered: list[tuple[int, int]] = []
    tended: SimpleQueue[None] = SimpleQueue()

    def gather(promise: Promise, number: int) -> Batch | None:
        gathered.append((promise.number, number))
        return Gatherer.gather(gatherer, promise, number)

    gatherer.gather = gather  # type: ignore[method-assign]
    worker = WorkAhead(gatherer, lambda: tended.put(None), batch_size)
    promises = deque(gatherer.promises(group(writer.slab, np.arange(promised), 1)))
    first = promises[0].number
    for number in range(5, 5 + promised):
        worker.prepare(promises, number)
        if number == 5:
            for _ in range(at_once):
                tended.get(timeout=10)
            assert len(gathered) == at_once
        promise = promises.popleft()
        assert worker.gather(promise, number) is promise.batch
    worker.close()
    assert gathered == [(first + i, 5 + i) for i in range(promised)]


def test_batches_that_are_prepared_become_void_together(tmp_path: Path) -> None:
    writer = make(tmp_path, 1, 1)
    gatherer = Gatherer(writer.slab)
    worker = WorkAhead(gatherer, lambda: None)
    *void, anew, last = gatherer.promises(group(writer.slab, np.arange(10), 2))
    worker.prepare(void, 1)
    assert worker.gather(anew, 1) is anew.batch  # the line began anew
    worker.prepare([last], 2)
    assert worker.gather(last, 2) is last.batch
    worker.close()
