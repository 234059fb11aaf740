"""Boxes out of large fields: where they lie, that feeds cut the same ones, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from campaigns import SMALL

from penstock_server.config import CampaignError, parse
from penstock_server.descriptors import Descriptors
from penstock_server.estimate import estimates
from penstock_server.feed_messages import Group
from penstock_server.gathering import Gatherer
from penstock_server.learner import blank
from penstock_server.patches import Patches, PatchSettings, find_patches
from penstock_server.slab import Slab, SlabSpec
from penstock_server.work_ahead import WorkAhead
from penstock_surrogates.normalisation import Moments, Normalisation
from penstock_surrogates.problem import Field, Problem

pytestmark = pytest.mark.timeout(60)
GRID, EXTENTS = (5, 7), (2, 3)
SETTINGS = PatchSettings(GRID, EXTENTS, ("u", "v", "k"), seed=4, rank=1)
SPACE = PatchSettings((4, 5, 6), (2, 3, 4), ("u", "v", "k"), seed=4, rank=1)
LARGE = PatchSettings((48, 64, 96), (16, 16, 32), ("u", "v", "k"), seed=4, rank=1)  # 1.2 MB a field


def test_boxes_follow_from_seed_rank_and_batch_and_lie_everywhere_inside() -> None:
    patches = Patches(SETTINGS)
    np.testing.assert_array_equal(patches.origins(9, 6), Patches(SETTINGS).origins(9, 6))
    others = [
        patches.origins(10, 6),
        Patches(PatchSettings(GRID, EXTENTS, (), seed=4, rank=0)).origins(9, 6),
        Patches(PatchSettings(GRID, EXTENTS, (), seed=5, rank=1)).origins(9, 6),
    ]
    assert all((patches.origins(9, 6) != other).any() for other in others)
    found, n = np.unique(patches.origins(1, 4000), axis=0, return_counts=True)
    assert found.tolist() == [[i, j] for i in range(4) for j in range(5)]
    assert n.min() > 130  # of 200 on average


def make_slab(folder: Path, window: int, grid: tuple[int, ...] = GRID) -> Slab:
    fields = {
        "u": ((*grid,), "float32"),
        "v": ((*grid, 2), "float64"),
        "q": ((3,), "float32"),
    }
    inputs = {"k": ((*grid,), "float32"), "s": ((4,), "float32")}
    slab = Slab.create(folder / "slab", SlabSpec(6, 3, window, 1, fields, inputs, 6, 1))
    descriptors, rng = Descriptors(slab.descriptor), np.random.default_rng(0)
    for array in [*slab.fields.values(), *slab.inputs.values(), slab.t]:
        array[...] = rng.random(array.shape)
    for slot in range(6):
        descriptors.begin(slot, slot, slot, 1, 0, 1, slot)
        descriptors.open(slot)
        descriptors.commit(slot, 3, slot, 0)
    return slab


def group(slab: Slab, samples: list[int], size: int) -> Group:
    own = np.array(samples, np.int64)
    generations = slab.descriptor["generation"][own // slab.spec.windows]
    return Group(1, 1, size, own, generations, [0] * (len(own) // size))


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("settings", [SETTINGS, SPACE, LARGE], ids=["plane", "space", "large"])
def test_a_gathered_box_is_that_of_the_whole_batch(
    tmp_path: Path, window: int, settings: PatchSettings
) -> None:
    grid, extents = tuple(settings.grid), tuple(settings.extents)
    slab, patches = make_slab(tmp_path, window, grid), Patches(settings)
    wanted = group(slab, [0, 5, 3, 7], 4)
    whole = Gatherer(slab).gather(Gatherer(slab).promises(wanted)[0], 8)
    own = Gatherer(slab, patches=patches)
    found = own.gather(own.promises(wanted)[0], 8)
    assert whole is not None and found is not None and found.origin is not None
    expected = patches.cut(whole, 8)
    assert torch.equal(found.origin, torch.from_numpy(patches.origins(8, 4)))
    for batch in (found, expected):
        shapes = {name: tuple(values.shape[2:]) for name, values in batch.fields.items()}
        assert shapes == {"u": extents, "v": (*extents, 2), "q": (3,)}
    for name in ("u", "v", "q"):
        assert torch.equal(found.fields[name], expected.fields[name])
    for name in ("k", "s"):
        assert torch.equal(found.inputs[name], expected.inputs[name])
    for i, origin in enumerate(found.origin.tolist()):
        box = tuple(slice(a, a + n) for a, n in zip(origin, extents))
        assert torch.equal(found.inputs["k"][i], whole.inputs["k"][i][box])
        assert torch.equal(found.fields["v"][i], whole.fields["v"][i][(slice(None), *box)])


def test_a_batch_that_was_gathered_under_another_number_is_gathered_anew(tmp_path: Path) -> None:
    slab, patches = make_slab(tmp_path, 1), Patches(SETTINGS)
    gatherer = Gatherer(slab, patches=patches)
    (promise,) = gatherer.promises(group(slab, [0, 4, 8], 3))
    worker = WorkAhead(gatherer, lambda: None)
    worker.prepare([promise], 2)
    found = worker.gather(promise, 3)
    worker.close()
    assert found is not None and found.origin is not None
    assert torch.equal(found.origin, torch.from_numpy(patches.origins(3, 3)))


def test_a_slot_that_was_given_away_voids_its_boxes(tmp_path: Path) -> None:
    slab = make_slab(tmp_path, 1)
    gatherer = Gatherer(slab, patches=Patches(SETTINGS))
    (promise,) = gatherer.promises(group(slab, [0, 4], 2))
    Descriptors(slab.descriptor).begin(1, 9, 9, 1, 0, 1, 1)
    assert gatherer.gather(promise, 1) is None


def test_settings_come_back_from_json() -> None:
    plain = {"grid": [5, 7], "extents": [2, 3], "names": ["u", "v", "k"], "seed": 4, "rank": 1}
    found = find_patches(plain)
    assert found is not None
    np.testing.assert_array_equal(found.origins(3, 5), Patches(SETTINGS).origins(3, 5))
    assert find_patches(None) is None


def test_a_problem_knows_what_training_sees() -> None:
    fields = {"u": Field(GRID), "v": Field((*GRID, 2), components=2), "q": Field((3,))}
    problem = Problem((), fields, {"k": Field(GRID), "s": Field((5, 6))}, patch=(2, 3))
    assert problem.patched == ("u", "v", "k")
    assert problem.seen_shape("v") == (2, 3, 2)
    assert problem.seen_shape("s") == (5, 6)
    assert Problem.from_dict(problem.to_dict()) == problem
    assert Problem((), fields).patched == ()
    moments = {name: Moments.of(torch.randn(9, 1)) for name in (*fields, "k", "s")}
    moments["v"] = Moments.of(torch.randn(9, 2), 2)
    spare = blank(problem, Normalisation.from_moments(problem, moments))
    assert spare.fields["v"].shape == (1, 1, 2, 3, 2)
    assert spare.inputs["k"].shape == (1, 2, 3)
    assert spare.origin is not None
    with pytest.raises(ValueError, match=r"A patch of 3 axes .* but there are none"):
        Problem((), fields, patch=(2, 3, 4))
    with pytest.raises(ValueError, match=r"\[2, 8\] does not fit into the grid \[5, 7\]"):
        Problem((), fields, patch=(2, 8))


OWN = 'training.surrogate="own:Net"'
INPUT = 'fields.k={shape=[32,32], role="input"}'


@pytest.mark.parametrize(
    ("overrides", "key", "part"),
    [
        (["training.patch=[8]", OWN], "training.patch", "temperature: [32, 32]"),
        (["training.patch=[8,33]", OWN, INPUT], "training.patch", "[8, 33] does not fit into"),
        (["training.patch=[8,8]"], "training.surrogate", '"mlp" predicts whole fields'),
        (["training.patch=[8,8]", OWN], "training.patch", "cannot know which patch"),
    ],
)
def test_what_cannot_be_trained_in_patches_is_said(
    overrides: list[str], key: str, part: str
) -> None:
    with pytest.raises(CampaignError) as caught:
        parse(SMALL, overrides, name="c.toml")
    told = [problem for problem in caught.value.problems if part in problem]
    assert len(told) == 1, caught.value.problems
    assert key in told[0]


def test_a_sample_is_as_large_as_its_patch() -> None:
    whole = estimates(parse(SMALL, name="c.toml"))
    cut = estimates(parse(SMALL, ["training.patch=[8,16]", OWN, INPUT], name="c.toml"))
    assert cut.sample_bytes * 8 == whole.sample_bytes
    assert cut.segment_bytes == whole.segment_bytes
