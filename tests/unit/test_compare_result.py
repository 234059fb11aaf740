"""Figures of a finished comparison: ratios, costs, tables and the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compare_fakes import FakeRunner, FakeScores, arms, campaign, study

from penstock_server.compare import output, report
from penstock_server.compare.arms import Recipe, Setting
from penstock_server.compare.costs import Costs, Counts, costs
from penstock_server.compare.study import Comparison, Study
from penstock_server.config import Campaign

SPENT = {"seconds": 10.0, "cpu_s": {"solvers": 0.0, "all": 7.0}, "bytes": {"written_fields": 0}}
FIRST = {"seconds": 99.0, "cpu_s": {"solvers": 50.0, "all": 80.0}, "bytes": {"written_fields": 500}}


def error(chosen: Campaign, network: str) -> float:
    """Validation nRMSE; the test error is twice as large. Seed 2 is twice as hard for all."""
    kind = 1.0 if chosen.mode == "online" else {100: 2.0, 200: 1.25}[chosen.design.simulations]
    return 0.1 * kind * chosen.seed


@pytest.fixture
def result(tmp_path: Path) -> dict[str, Any]:
    made = study(tmp_path, FakeRunner(), FakeScores(error))
    made.run()
    return output.write(made, bar=0.32)


def test_an_offline_arm_pays_for_the_simulations_that_it_trains_on() -> None:
    counts = Counts(train=30, validation=10, test=10)  # production: one core-second each
    assert costs(10, SPENT, FIRST, counts, workers=2) == Costs(7 + 20, 10 + 20 / 2, 200)
    assert costs(30, SPENT, FIRST, counts, workers=2) == Costs(7 + 40, 10 + 40 / 2, 400)


def test_the_online_arm_stores_nothing_and_does_not_pay_for_test_simulations() -> None:
    counts = Counts(train=30, validation=10, test=10)
    assert costs(None, FIRST, FIRST, counts, workers=2) == Costs(30 + 40, 99.0, 0.0)


def test_ratios_are_of_test_mse_paired_by_seed(result: dict[str, Any]) -> None:
    small, everything = result["pairs"]
    assert (small["ours"], small["peer"]) == ("online", "offline-small")
    assert small["mse_ratio_by_seed"] == pytest.approx([0.25, 0.25])
    assert small["mse_ratio"]["mean"] == pytest.approx(0.25)
    assert small["rmse_ratio"]["mean"] == pytest.approx(0.5)
    assert small["mse_ratio_by_field"]["temperature"]["mean"] == pytest.approx(0.25)
    assert small["verdict"] == "better, bar met"
    assert everything["mse_ratio"]["mean"] == pytest.approx(1 / 1.25**2)


def test_the_bar_against_everything_stored_is_what_streaming_may_cost(
    result: dict[str, Any],
) -> None:
    assert [pair["bar"] for pair in result["pairs"]] == [0.32, 1.10]


def test_raw_errors_of_every_seed_and_their_geometric_means_are_there(
    result: dict[str, Any],
) -> None:
    online = result["arms"][0]
    assert online["per_field"]["temperature"]["mse"]["mean"] == pytest.approx(2 * 4 * 1.0)
    assert [row["nrmse"] for row in result["rows"] if row["arm"] == "online"] == [0.2, 0.4]
    assert online["over_t"]["temperature"]["nrmse"] == pytest.approx([0.08**0.5] * 2)
    assert online["simulations"] == 200


def test_opponents_stand_beside_for_each_size_of_the_data(result: dict[str, Any]) -> None:
    found = {(o["opponent"], o["simulations"]): o["nrmse"]["mean"] for o in result["opponents"]}
    assert found == {
        ("constant", 100): pytest.approx(1.0),
        ("constant", 200): pytest.approx(1.0),
        ("linear", 100): pytest.approx(0.2),
        ("linear", 200): pytest.approx(0.1),
    }


def test_the_tables_have_a_row_an_arm_and_the_verdicts(
    tmp_path: Path, result: dict[str, Any]
) -> None:
    text = (tmp_path / output.TABLE).read_text()
    for start in ("| online | 8 |", "| offline-small | 32 |", "| linear emulator of 200 |"):
        assert start in text
    assert "0.25 [0.25, 0.25] | 0.5 [0.5, 0.5] | 0.25 0.25 | 0.32 | better, bar met |" in text
    assert len(report.tables(result)) == 3


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path) -> None:
    made = study(tmp_path, FakeRunner(), FakeScores(error), seeds=1)
    made.run()
    found = output.write(made)
    assert found["pairs"][0]["mse_ratio"]["low"] is None
    assert found["pairs"][0]["verdict"] == "bar met"
    assert report.ONE_SEED in (tmp_path / output.TABLE).read_text()


def test_arms_with_a_setting_of_their_own_are_compared_with_each_other(tmp_path: Path) -> None:
    fixed = Setting(Recipe("step", 1e-4), "last")
    tuned = arms("online,offline-small")
    sc23 = tuple(replace(arm, name=f"{arm.name}, SC'23", fixed=fixed) for arm in tuned)
    runner = FakeRunner()
    comparison = Comparison(campaign(), (*tuned, *sc23), 1, True, tmp_path)
    made = Study(comparison, runner, FakeScores(error), lambda text: None)
    made.run()
    assert len(runner.ran) == 2 * 6  # the grid holds that setting already
    found = output.write(made)
    assert [(pair["ours"], pair["peer"]) for pair in found["pairs"]] == [
        ("online", "offline-small"),
        ("online, SC'23", "offline-small, SC'23"),
    ]
    assert [arm["setting"] for arm in found["arms"]][2:] == ["step, weight decay 0.0001, last"] * 2


def test_result_json_and_the_figure_are_written_whole(
    tmp_path: Path, result: dict[str, Any]
) -> None:
    stored = json.loads((tmp_path / output.RESULT).read_text(), parse_constant=pytest.fail)
    assert stored == json.loads(json.dumps(result))
    assert (tmp_path / output.FIGURE).read_bytes()[:4] == b"\x89PNG"


def test_the_tuning_table_names_every_setting_that_was_tried(tmp_path: Path) -> None:
    made = study(tmp_path, FakeRunner(), FakeScores(error), tune=True, seeds=1, of=campaign())
    made.run()
    assert len(output.write(made)["tuning"]) == 3 * 6 * 2
