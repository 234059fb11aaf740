"""The way of a comparison: pairing, tuning, the test set used once, interruption and refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_fakes import FakeRunner, FakeScores, campaign, study

from penstock_server.compare.arms import Recipe, Setting
from penstock_server.compare.errors import CompareError
from penstock_server.config import Campaign

BEST_OFFLINE = Setting(Recipe("step", 1e-4), "best")


def offline_likes_decay(chosen: Campaign, network: str) -> float:
    """Offline arms are best with BEST_OFFLINE, the online arm with cosine, no decay, last."""
    training = chosen.training
    penalty = 0.1 * (training.schedule == "step") + 1000 * training.weight_decay
    penalty += 0.05 * (network == "best")
    return 0.5 + penalty if chosen.mode == "online" else 0.9 - penalty


def test_all_arms_of_a_seed_train_on_its_simulations_with_its_normalisation(tmp_path: Path) -> None:
    runner = FakeRunner()
    study(tmp_path, runner, FakeScores()).run()
    assert [(c.seed, c.mode, c.keep) for c in runner.ran] == [
        (seed, mode, keep)
        for seed in (1, 2)
        for mode, keep in (("online", "all"), ("offline", "none"), ("offline", "none"))
    ]
    for at in (0, 3):
        others = runner.ran[at + 1 : at + 3]
        assert len({(c.offline.dataset, c.training.normalisation) for c in others}) == 1
        assert f"seed-{at // 3}/online" in str(others[0].offline.dataset)
        assert [c.design.simulations for c in others] == [100, 200]
    assert {c.design.test for c in runner.ran} == {8}
    assert not any(c.validation.test for c in runner.ran)


def test_each_arm_tunes_on_the_first_seed_and_keeps_its_choice(tmp_path: Path) -> None:
    runner = FakeRunner()
    made = study(tmp_path, runner, FakeScores(offline_likes_decay), tune=True, seeds=3)
    made.run()
    assert len(runner.ran) == 3 * 6 + 2 * 3
    assert made.settings["online"] == Setting(Recipe("cosine", 0.0), "last")
    assert made.settings["offline-small"] == made.settings["offline-all"] == BEST_OFFLINE
    later = [c for c in runner.ran if c.seed == 3]
    assert [(c.training.schedule, c.training.weight_decay) for c in later] == [
        ("cosine", 0.0),
        ("step", 1e-4),
        ("step", 1e-4),
    ]


def test_only_chosen_networks_see_the_test_simulations_and_only_once(tmp_path: Path) -> None:
    scores = FakeScores(offline_likes_decay)
    for _ in range(2):
        study(tmp_path, FakeRunner(), scores, tune=True).run()
    assert len(scores.tested) == 2 * 3
    assert set(scores.tested.values()) == {1}
    assert sum("/best" in model for model in scores.tested) == 2 * 2


def test_no_network_is_tested_before_every_arm_has_chosen(tmp_path: Path) -> None:
    scores = FakeScores()
    runner = FakeRunner()
    runner.dies = lambda c: c.design.simulations == 200 and c.training.weight_decay == 1e-4
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, runner, scores, text="online,offline-all", tune=True).run()
    assert not scores.tested


@pytest.mark.parametrize("at", range(6))
def test_an_interrupted_comparison_repeats_only_the_run_that_was_under_way(
    tmp_path: Path, at: int
) -> None:
    runner = FakeRunner()
    runner.dies = lambda c: len(runner.ran) == at
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, runner, FakeScores()).run()
    assert runner.stops
    runner.dies = lambda c: False
    study(tmp_path, runner, FakeScores()).run()
    assert len(runner.ran) == 6


def test_a_finished_comparison_runs_nothing_and_more_seeds_run_the_new_ones(tmp_path: Path) -> None:
    runner = FakeRunner()
    study(tmp_path, runner, FakeScores()).run()
    study(tmp_path, runner, FakeScores()).run()
    assert len(runner.ran) == 6
    study(tmp_path, runner, FakeScores(), seeds=3).run()
    assert [c.seed for c in runner.ran[6:]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"of": campaign("training.batch_size=20", "stop.batches=2500")}, "training.batch_size"),
        ({"text": "online,offline-50,offline-all"}, "offline-50"),
        ({"tune": True}, "tune was false and is true"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused_by_what_differs(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    study(tmp_path, FakeRunner(), FakeScores(), of=campaign("stop.batches=2500")).run()
    given = {"of": campaign("stop.batches=2500"), **changed}
    with pytest.raises(CompareError, match=words):
        study(tmp_path, FakeRunner(), FakeScores(), **given).run()  # type: ignore[arg-type]


def test_two_comparisons_do_not_work_in_one_folder(tmp_path: Path) -> None:
    made = study(tmp_path, FakeRunner(), FakeScores())
    with made.records.lock(), pytest.raises(CompareError, match="Another comparison"):
        study(tmp_path, FakeRunner(), FakeScores()).run()


@pytest.mark.parametrize(("keep", "left"), [(False, 0), (True, 2)])
def test_the_data_of_a_finished_seed_goes_unless_it_is_to_stay(
    tmp_path: Path, keep: bool, left: int
) -> None:
    study(tmp_path, FakeRunner(), FakeScores(), keep_data=keep).run()
    assert len(list(tmp_path.glob("runs/*/*/*/*/data.h5"))) == left


def test_data_that_somebody_removed_is_named(tmp_path: Path) -> None:
    runner = FakeRunner()
    runner.dies = lambda c: c.mode == "offline"
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, runner, FakeScores()).run()
    next(tmp_path.glob("runs/*/*/*/*/data.h5")).unlink()
    with pytest.raises(CompareError, match="The simulations of seed 0 are gone"):
        study(tmp_path, FakeRunner(), FakeScores()).run()


def test_a_run_with_another_number_of_batches_is_refused(tmp_path: Path) -> None:
    runner = FakeRunner()
    runner.batches = 2400
    with pytest.raises(CompareError, match=r"train 2500 batches.*trained 2400"):
        study(tmp_path, runner, FakeScores()).run()


def test_an_online_run_that_stored_too_little_is_refused(tmp_path: Path) -> None:
    scores = FakeScores()
    scores.there = 190
    with pytest.raises(CompareError, match="only the first 190"):
        study(tmp_path, FakeRunner(), scores).run()


def test_offline_runs_side_by_side_give_the_same_records(tmp_path: Path) -> None:
    one, two = (study(tmp_path / str(n), FakeRunner(), FakeScores(), jobs=n) for n in (1, 3))
    for made in (one, two):
        made.run()
    names = [sorted(p.name for p in m.records.folder.rglob("records/*/*")) for m in (one, two)]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * (3 + 3 + 2)
