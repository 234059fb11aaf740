"""Arms, grid and overrides of a comparison, and the campaigns that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_fakes import arms, campaign

from penstock_server.compare.arms import GRID, Recipe, Setting, choose, parse_arms
from penstock_server.compare.errors import CompareError
from penstock_server.compare.plan import First, Run, budget, overrides, runs_of
from penstock_server.config import load

RECIPE = Recipe("step", 1e-5)


def test_arms_are_read_with_their_sizes_and_the_online_one_leads() -> None:
    found = parse_arms("offline-25, offline-small,offline-all,online", 100, 2000)
    assert [(arm.name, arm.simulations) for arm in found] == [
        ("online", None),
        ("offline-25", 25),
        ("offline-small", 100),
        ("offline-all", 2000),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("offline-small", "needs online"),
        ("online,offline-3000", "needs 3000 simulations"),
        ("online,offline-0", "An arm is"),
        ("online,nearline", "An arm is"),
        ("online,offline-small,offline-100", "more than once"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(text: str, why: str) -> None:
    with pytest.raises(CompareError, match=why):
        parse_arms(text, 100, 2000)


def test_the_grid_is_two_schedules_times_three_weight_decays() -> None:
    assert len(set(GRID)) == 6
    assert {recipe.schedule for recipe in GRID} == {"cosine", "step"}
    assert {recipe.weight_decay for recipe in GRID} == {0.0, 1e-5, 1e-4}


def test_an_online_run_comes_first_and_arms_of_one_source_share_runs() -> None:
    both = (*arms("online,offline-100"), *arms("online"))
    found = runs_of(0, both, {"online": GRID, "offline-100": [RECIPE]})
    assert [run.source for run in found] == ["online"] * 6 + ["offline-100"]
    assert len({run.key for run in found}) == 7


def left(folder: Path) -> First:
    """What a first run left, as far as a campaign file looks at it."""
    (folder / "model").mkdir()
    (folder / "model" / "model.json").touch()
    (folder / "data.h5").touch()
    return First(folder / "data.h5", folder / "model", 198)


def applied(tmp_path: Path, run: Run, first: First | None) -> object:
    campaign().save(tmp_path / "campaign.toml")
    return load(tmp_path / "campaign.toml", overrides(run, campaign(), 2500, first))


def test_the_first_run_of_a_seed_streams_and_stores_everything(tmp_path: Path) -> None:
    found = applied(tmp_path, Run(3, "online", None, RECIPE), None)
    expected = campaign(
        "seed=4", 'keep="all"', "stop.batches=2500", "training.weight_decay=1e-5",
        'training.schedule="step"', "validation.test=false", "validation.opponents=false",
    )  # fmt: skip
    assert found == expected


def test_an_offline_run_trains_on_the_first_simulations_of_that_data(tmp_path: Path) -> None:
    first = left(tmp_path)
    found = applied(tmp_path, Run(3, "offline-100", 100, RECIPE), first)
    expected = campaign(
        "seed=4", 'mode="offline"', "stop.batches=2500", "training.weight_decay=1e-5",
        'training.schedule="step"', "validation.test=false", "validation.opponents=false",
        f'offline.dataset="{first.data}"', "design.simulations=100",
        f'training.normalisation="{first.model}"',
    )  # fmt: skip
    assert found == expected


def test_an_offline_run_does_not_ask_for_simulations_that_are_not_stored(tmp_path: Path) -> None:
    found = overrides(Run(0, "offline-200", 200, RECIPE), campaign(), 2500, left(tmp_path))
    assert "design.simulations=198" in found


def test_every_arm_has_the_batches_that_the_stream_gives() -> None:
    assert budget(campaign(), arms()) == 2500
    assert budget(campaign("stop.batches=700"), arms()) == 700


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("design.test=0", "design.validation and design.test"),
        ("stop.seconds=10", "same number of batches"),
        ('mode="store"', "mode"),
        ('design.sampler="lhs"', "offline-small"),
    ],
)
def test_a_campaign_whose_arms_would_not_be_alike_is_refused(override: str, why: str) -> None:
    with pytest.raises(CompareError, match=why):
        budget(campaign(override), arms())


def test_a_campaign_with_a_normalisation_of_its_own_is_refused(tmp_path: Path) -> None:
    given = campaign(f'training.normalisation="{left(tmp_path).model}"')
    with pytest.raises(CompareError, match="takes the normalisation"):
        budget(given, arms())


def test_stratified_points_are_fine_where_all_arms_train_on_all_of_them() -> None:
    assert budget(campaign('design.sampler="lhs"'), arms("online,offline-all")) == 2500


def test_the_least_finite_validation_error_wins() -> None:
    last, best = Setting(RECIPE, "last"), Setting(RECIPE, "best")
    assert choose([(last, float("nan")), (best, 0.5)]) == best
    assert choose([(last, 0.25), (best, 0.25)]) == last
    with pytest.raises(CompareError, match="diverged"):
        choose([(last, float("nan")), (best, float("inf"))])
