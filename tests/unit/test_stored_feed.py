"""Offline training's feed: epochs without repeats, the same batches after a restart, by rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stored

from penstock_server.dataset import DataSetError
from penstock_server.stored_feed import StoredFeed, StoredFeedSettings, windows
from penstock_surrogates.batch import Batch


def feed(path: Path, **changes: object) -> StoredFeed:
    settings = {
        "path": str(path),
        "rank": 0,
        "world": 1,
        "batch_size": 4,
        "window": 1,
        "stride": 1,
        "segment_steps": 1,
        "components": {"u": 1},
        "seed": 3,
        **changes,
    }
    return StoredFeed(StoredFeedSettings(**settings))  # type: ignore[arg-type]


def samples(batch: Batch) -> list[tuple[int, int]]:
    return [(int(s), int(step[0])) for s, step in zip(batch.simulation, batch.step, strict=True)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stored.write(tmp_path / "data.h5", {"train": [1, 2, 3, 4], "validation": [0]})
    return tmp_path / "data.h5"


def test_an_epoch_has_every_sample_once_and_its_own_order(path: Path) -> None:
    own = feed(path)
    epochs = [
        [s for batch in range(6) for s in samples(own.take(6 * epoch + batch + 1))]
        for epoch in range(2)
    ]
    everything = [(s, step) for s in (1, 2, 3, 4) for step in range(6)]
    assert [sorted(epoch) for epoch in epochs] == [everything, everything]
    assert epochs[0] != epochs[1]


def test_a_batch_has_the_values_of_its_samples(path: Path) -> None:
    batch = feed(path).take(1)
    for i, (simulation, step) in enumerate(samples(batch)):
        assert np.array_equal(batch.fields["u"][i, 0], stored.value(simulation, step))
        assert batch.parameters[i].tolist() == list(stored.point(simulation).values())


def test_a_restarted_rank_gets_the_batches_that_it_would_have_got(path: Path) -> None:
    first = feed(path)
    before = [samples(first.take(n)) for n in range(1, 9)]
    again = feed(path)
    again.restore(5)
    assert [samples(again.take(n)) for n in range(6, 9)] == before[5:]


def test_ranks_share_an_epoch_without_overlap(path: Path) -> None:
    feeds = [feed(path, rank=rank, world=2, batch_size=3) for rank in range(2)]
    drawn = [s for n in range(1, 5) for each in feeds for s in samples(each.take(n))]
    assert len(set(drawn)) == len(drawn) == 24


def test_rows_choose_the_simulations(path: Path) -> None:
    own = feed(path, rows=[1, 3])
    drawn = {s for n in range(1, 4) for s, _ in samples(own.take(n))}
    assert len(drawn) == 2
    assert own.stock(0.0).stored == 12


def test_workers_of_the_loader_give_the_same_batches(path: Path) -> None:
    alone, helped = feed(path, loader_workers=0), feed(path, loader_workers=1)
    assert [samples(alone.take(n)) for n in (1, 2)] == [samples(helped.take(n)) for n in (1, 2)]
    helped.close()


def test_the_counts_say_that_everything_is_there(path: Path) -> None:
    own = feed(path)
    assert (own.stock(0.0).unseen, own.stock(0.0).over, own.stock(0.0).ready) == (24, True, 4)
    own.take(1)
    assert own.stock(0.0).unseen == 20
    own.restore(6)
    assert own.stock(0.0).unseen == 0


def test_windows_lie_inside_segments() -> None:
    row, start = windows(np.array([5]), np.array([7]), span=2, segment_steps=3)
    assert row.tolist() == [5] * 4
    assert start.tolist() == [0, 1, 3, 4]  # 6 is a segment of its own, too short


def test_moments_are_those_of_all_training_steps(path: Path) -> None:
    found = feed(path).moments()
    values = np.stack([stored.value(s, step) for s in (1, 2, 3, 4) for step in range(6)])
    assert found["u"].count == values.size
    assert float(found["u"].mean) == pytest.approx(values.mean())
    assert (float(found["t"].low), float(found["t"].high)) == pytest.approx((0.1, 0.6))


def test_fewer_samples_than_a_batch_are_refused(path: Path) -> None:
    with pytest.raises(DataSetError, match="has 24 samples for training, fewer than one batch"):
        feed(path, batch_size=25)
