"""Comparisons with a network that diverged, was exact, or has no best one: they still end."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from compare_fakes import FakeRunner, FakeScores, study

from penstock_server.compare import output, report
from penstock_server.compare.errors import CompareError
from penstock_server.compare.study import Study
from penstock_server.config import Campaign


class Forgets(FakeRunner):
    """Runs of the second seed keep no best network."""

    def run(self, campaign: Path, overrides: Sequence[str], folder: Path) -> Path:
        run = super().run(campaign, overrides, folder)
        if self.ran[-1].seed == 2:
            shutil.rmtree(run / "best")
        return run


def small_is(error: float, seed: int) -> FakeScores:
    """Of offline-small in one seed; everywhere else it is 0.5."""

    def rule(chosen: Campaign, network: str) -> float:
        small = chosen.mode == "offline" and chosen.design.simulations == 100
        return error if small and chosen.seed == seed else 0.5

    return FakeScores(rule)


def best_wins(chosen: Campaign, network: str) -> float:
    return 0.4 if network == "best" else 0.5


def finished(out: Path, runner: FakeRunner, scores: FakeScores, **how: Any) -> tuple[Study, Any]:
    made = study(out, runner, scores, **how)
    made.run()
    return made, output.write(made, bar=0.32)


@pytest.mark.parametrize("error", [math.nan, math.inf, 0.0])
def test_a_ratio_that_is_not_defined_leaves_the_pair_undecided_and_the_others_as_they_are(
    tmp_path: Path, error: float
) -> None:
    _, result = finished(tmp_path, FakeRunner(), small_is(error, seed=2))
    small, everything = result["pairs"]
    assert small["mse_ratio"] is None
    assert small["rmse_ratio"] is None
    assert small["verdict"] == "undecided"
    assert everything["mse_ratio"]["mean"] == pytest.approx(1.0)


def test_a_comparison_with_a_diverged_network_leaves_its_files_and_tables(tmp_path: Path) -> None:
    _, result = finished(tmp_path, FakeRunner(), small_is(math.nan, seed=2))
    stored = json.loads((tmp_path / output.RESULT).read_text(), parse_constant=pytest.fail)
    assert stored == json.loads(json.dumps(result, allow_nan=False))
    assert [row["mse"] for row in stored["rows"] if row["arm"] == "offline-small"] == [1.0, None]
    text = (tmp_path / output.TABLE).read_text()
    assert "| online / offline-small | not defined | not defined | 1 unknown |" in text
    assert (tmp_path / output.FIGURE).read_bytes()[:4] == b"\x89PNG"
    assert len(report.tables(result)) == 3


def test_all_networks_of_a_seed_may_diverge(tmp_path: Path) -> None:
    scores = FakeScores(lambda chosen, network: math.nan if chosen.seed == 2 else 0.5)
    _, result = finished(tmp_path, FakeRunner(), scores)
    assert {pair["verdict"] for pair in result["pairs"]} == {"undecided"}
    assert (tmp_path / output.FIGURE).is_file()


def test_where_a_run_kept_no_best_network_its_last_one_counts_and_the_row_says_so(
    tmp_path: Path,
) -> None:
    scores = FakeScores(best_wins)
    made, result = finished(tmp_path, Forgets(), scores, tune=True)
    assert {setting.checkpoint for setting in made.settings.values()} == {"best"}
    found = {(row["seed"], row["checkpoint"], row["validation"]) for row in result["rows"]}
    assert found == {(0, "best", 0.4), (1, "last", 0.5)}
    assert sum(model.endswith("/model") for model in scores.tested) == 3


def test_a_gap_in_the_stored_simulations_is_told_with_both_of_its_causes(tmp_path: Path) -> None:
    scores = FakeScores()
    scores.there = 3
    with pytest.raises(CompareError, match=r"first 3 without a gap.*failed.*more batches"):
        study(tmp_path, FakeRunner(), scores).run()
