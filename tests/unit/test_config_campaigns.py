"""The campaigns that come with Penstock are valid and cost what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import small

from penstock_server.config import load, parse
from penstock_server.design import draw
from penstock_server.estimate import estimates
from penstock_server.examples import campaigns_folder, example

FILES = sorted(campaigns_folder().glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_has_its_points(path: Path) -> None:
    campaign = load(path)
    points = draw(campaign)
    assert len(points["train"]) == campaign.design.simulations
    assert not estimates(campaign).remarks
    assert parse(campaign.to_toml()) == campaign


def test_the_study_of_the_paper_has_the_papers_size() -> None:
    campaign = load(example("heat_sc23"))
    costs = estimates(campaign)
    assert costs.samples == 200_000
    assert costs.batches == 25_000
    assert costs.batches * campaign.training.global_batch == 1.25 * costs.samples


def test_an_unknown_example_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"choose one of .*demo, demo_numpy"):
        example("nothing")


def test_costs_are_counted_in_bytes() -> None:
    costs = estimates(small("reservoir.capacity=1000"))
    assert costs.sample_bytes == costs.segment_bytes == 32 * 32 * 4
    assert costs.slab_bytes == 1000 * 4096
    assert costs.simulation_bytes == 100 * 4096
    assert costs.held_out_bytes == (16 + 2) * costs.simulation_bytes  # a spare one a worker
    assert costs.streamed_bytes == 216 * costs.simulation_bytes
    assert costs.batches == 2500
    assert costs.memory_bytes > costs.slab_bytes + costs.held_out_bytes


@pytest.mark.parametrize(
    ("override", "remark"),
    [
        ("stop.batches=100000", "will not be reached"),
        ("stop.batches=10", "untrained_by_budget"),
        ("stream.segment_steps=30", "last segment"),
        ("design.validation=0", "no error is reported"),
        ("design.simulations=1", "when the last simulation has ended"),
    ],
)
def test_what_may_not_be_meant_is_remarked(override: str, remark: str) -> None:
    assert any(remark in text for text in estimates(small(override)).remarks)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("length", [9, 10, 12])
def test_steps_that_are_in_no_sample_are_remarked(window: int, stride: int, length: int) -> None:
    campaign = small(
        f"training.window={window}", f"training.stride={stride}", f"stream.segment_steps={length}"
    )
    starts, offsets = range(campaign.samples_per_segment), range(0, window * stride, stride)
    unused = length - len({start + offset for start in starts for offset in offsets})
    found = [text for text in estimates(campaign).remarks if "in no sample" in text]
    assert len(found) == (unused > 0)
    assert not found or found[0].startswith(f"{unused} of the {length} steps")
