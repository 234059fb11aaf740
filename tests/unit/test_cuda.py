"""What a rank does on a GPU; skipped where there is none."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from slab_writer import being_rewritten, group, make
from trainer_scripted import Interrupted, ScriptedFeed, TickingClock, make_batches, make_plan

from penstock_server.device_copy import OWN_COPY_BYTES
from penstock_server.draw_log import contents
from penstock_server.gathering import Gatherer
from penstock_server.patches import Patches, PatchSettings
from penstock_server.pending_loss import PendingLoss
from penstock_server.trainer import train
from penstock_server.turns import Diverged
from penstock_server.work_ahead import WorkAhead
from penstock_surrogates import storage

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

SMALL, LARGE = 5, OWN_COPY_BYTES // 8  # values of an input field; fields have two components


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where slabs are: files of a disk cannot be page-locked."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda", 0)


def ignore(progress: dict[str, Any]) -> None:
    return None


@pytest.mark.parametrize("values", [SMALL, LARGE])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2)])
def test_a_batch_on_the_gpu_is_that_of_the_cpu(
    memory: Path, cuda: torch.device, values: int, window: int, stride: int
) -> None:
    slab = make(memory, 4, window, values=values, stride=stride).slab
    samples = np.random.default_rng(0).permutation(12 * slab.spec.windows)[:12].astype(np.int64)
    own, other, wanted = Gatherer(slab, cuda), Gatherer(slab), group(slab, samples, 4)
    for ours, expected in zip(own.promises(wanted), other.promises(wanted), strict=True):
        there, here = own.gather(ours, 1), other.gather(expected, 1)
        assert there is not None and here is not None
        assert there.fields["u"].device == there.inputs["k"].device == cuda
        assert there.parameters.device.type == "cpu"  # those the trainer notes down
        assert contents(there) == contents(here)
        assert torch.equal(there.inputs["k"].cpu(), here.inputs["k"])
        for name in ("parameters", "t", "simulation", "step"):
            brought = getattr(there.to(cuda), name)
            assert brought.device == cuda
            assert torch.equal(brought.cpu(), getattr(here, name))
        assert there.to(cuda).fields["u"] is there.fields["u"]
    own.close()
    own.close()


def test_boxes_come_to_the_gpu(memory: Path, cuda: torch.device) -> None:
    slab = make(memory, 1, 1, values=7).slab
    patches = Patches(PatchSettings((7,), (3,), ("u", "k"), 4, 1))
    wanted = group(slab, np.arange(4), 4)
    found = [
        gatherer.gather(gatherer.promises(wanted)[0], 8)
        for gatherer in (Gatherer(slab, cuda, patches), Gatherer(slab, patches=patches))
    ]
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0].fields["u"].cpu(), found[1].fields["u"])
    assert torch.equal(found[0].inputs["k"].cpu(), found[1].inputs["k"])


@pytest.mark.parametrize("values", [SMALL, LARGE])
def test_no_torn_sample_reaches_the_gpu(memory: Path, cuda: torch.device, values: int) -> None:
    writer = make(memory, 2, 2, n_slots=8, values=values)
    rng, found = np.random.default_rng(1), {"whole": 0, "torn": 0}
    gatherer = Gatherer(writer.slab, cuda)
    worker = WorkAhead(gatherer, lambda: None)
    with being_rewritten(writer):
        while min(found.values()) < 40:
            samples = np.array(rng.choice(8, 2, replace=False), np.int64)
            promised = group(writer.slab, samples, 1)
            if (promised.generations % 2).any():
                continue
            for promise in gatherer.promises(promised):
                worker.prepare([promise], 1)
                batch = worker.gather(promise, 1)
                found["torn" if batch is None else "whole"] += 1
                if batch is not None:
                    number = int(batch.simulation[0])
                    steps = torch.tensor([2 * number, 2 * number + 1], device=cuda)
                    assert (batch.fields["u"][0] == steps[:, None, None]).all()
                    assert (batch.inputs["k"] == number).all()
    worker.close()
    gatherer.close()


def test_memory_that_is_still_read_is_not_given_to_the_next_batch(
    memory: Path, cuda: torch.device
) -> None:
    slab = make(memory, 1, 1, values=LARGE).slab
    gatherer, sums = Gatherer(slab, cuda), []
    for slot in range(12):
        (promise,) = gatherer.promises(group(slab, np.array([slot]), 1))
        batch = gatherer.gather(promise, 1)
        assert batch is not None
        torch.cuda._sleep(20_000_000)  # the reader is late
        sums.append(batch.fields["u"].mean())
        del batch
    assert [float(each) for each in sums] == [100.0 + slot for slot in range(12)]
    gatherer.close()


def test_a_slab_that_cannot_be_page_locked_is_gathered_from(
    tmp_path: Path,
    cuda: torch.device,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slab = make(tmp_path, 1, 1, values=LARGE).slab
    lock = torch.cuda.cudart().cudaHostRegister
    refused = SimpleNamespace(cudaHostRegister=lambda at, n, flags: lock(at, n, 1 << 20))
    monkeypatch.setattr(torch.cuda, "cudart", lambda: refused)
    gatherer = Gatherer(slab, cuda)
    (promise,) = gatherer.promises(group(slab, np.arange(4), 4))
    batch = gatherer.gather(promise, 1)
    assert batch is not None
    assert [float(u.mean()) for u in batch.fields["u"]] == [100.0, 101.0, 102.0, 103.0]
    assert "cannot be page-locked" in caplog.text
    gatherer.close()


def test_a_loss_is_waited_for_and_nothing_after_it(cuda: torch.device) -> None:
    value = torch.full((), 3.0, device=cuda)
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    began = time.perf_counter()
    first = PendingLoss(value)
    assert time.perf_counter() - began < 0.02
    torch.cuda._sleep(2_000_000_000)
    assert float(first) == 3.0
    waited_s = time.perf_counter() - began
    torch.cuda.synchronize()
    assert waited_s < 0.5 * (time.perf_counter() - began)


def test_a_training_on_the_gpu_gives_the_model_of_the_cpu(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        plan = make_plan(tmp_path / device, learning_rate=1e-2, dtype="float64", device=device)
        outcome = train(plan, ScriptedFeed(make_batches(100)), ignore, clock=TickingClock())
        assert (outcome["batches"], outcome["draws"]) == (100, 400)
    models = [storage.load(tmp_path / device / "model") for device in ("cpu", "cuda")]
    ours, expected = (m.predict({"a": 0.3, "b": 5.0}, t=[0.0, 0.5])["u"] for m in models)
    assert torch.allclose(ours, expected, rtol=1e-6)


def test_a_training_on_the_gpu_goes_on_from_its_snapshot(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, dtype="float64", device="cuda")
    plan = replace(plan, limits=replace(plan.limits, snapshot_batches=20))
    feed = ScriptedFeed(make_batches(60), die_at=50)
    with pytest.raises(Interrupted):
        train(plan, feed, ignore, clock=TickingClock())
    feed.die_at = None
    train(plan, feed, ignore, clock=TickingClock())
    whole = make_plan(tmp_path / "whole", dtype="float64", device="cuda")
    train(whole, ScriptedFeed(make_batches(60)), ignore, clock=TickingClock())
    for name, values in storage.load(tmp_path / "model").model.state_dict().items():
        other = storage.load(tmp_path / "whole" / "model").model.state_dict()[name]
        assert torch.allclose(values, other, rtol=1e-9), name


def test_a_divergence_on_the_gpu_leaves_no_model(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, learning_rate=1e30, optimizer="sgd", device="cuda")
    with pytest.raises(Diverged):
        train(plan, ScriptedFeed(make_batches(50)), ignore, clock=TickingClock())
    assert not (tmp_path / "model").exists()
