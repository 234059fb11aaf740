"""A runner and scores that stand in for solvers, training and data, for the tests of compare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from campaigns import SMALL

from penstock_server.compare.arms import Arm, parse_arms
from penstock_server.compare.study import Comparison, Study
from penstock_server.config import Campaign, load, parse

ARMS = "online,offline-small,offline-all"
TIMES = [0.5, 1.0]


def campaign(*overrides: str) -> Campaign:
    """200 simulations of 100 steps, drawn 1.25 times in batches of 10: 2,500 batches."""
    return parse(SMALL, ["design.test=8", *overrides])


def arms(text: str = ARMS) -> tuple[Arm, ...]:
    return parse_arms(text, 100, 200)


class FakeRunner:
    """Leaves what a run leaves; `dies` makes a run fail, as an interruption does."""

    def __init__(self) -> None:
        self.ran: list[Campaign] = []
        self.stops = 0
        self.dies: Callable[[Campaign], bool] = lambda campaign: False
        self.batches: int | None = None  # that it trains, if not those that it should

    def run(self, campaign: Path, overrides: Sequence[str], folder: Path) -> Path:
        chosen = load(campaign, overrides)
        if self.dies(chosen):
            raise KeyboardInterrupt
        self.ran.append(chosen)
        run = folder / chosen.name / "1"
        for name in ("model", "best"):
            (run / name).mkdir(parents=True)
            (run / name / "model.json").write_text(json.dumps(chosen.model_dump(mode="json")))
        if chosen.keep == "all":
            (run / "data.h5").touch()
        summary = {
            "batches": self.batches or chosen.stop.batches,
            "seconds": 10.0,
            "cpu_s": {"solvers": 22.4, "training": 5.0, "server": 2.0, "all": 29.4},
            "bytes": {"streamed": 2240, "written_fields": 2240 if chosen.keep == "all" else 0},
        }
        (run / "summary.json").write_text(json.dumps(summary))
        return run

    def stop(self) -> None:
        self.stops += 1


class FakeScores:
    """Errors as a rule of (campaign, "last" or "best"), and how often test was looked at."""

    def __init__(self, error: Callable[[Campaign, str], float] | None = None) -> None:
        self.error = error or (lambda campaign, network: 0.5)
        self.tested: Counter[str] = Counter()
        self.there = 200

    def complete(self, data: Path, points: Sequence[Mapping[str, float]]) -> int:
        assert data.is_file()
        return min(self.there, len(points))

    def validation(self, data: Path, model: Path) -> float:
        assert data.is_file()
        return self.error(*_read(model))

    def test(self, data: Path, model: Path) -> dict[str, Any]:
        assert data.is_file()
        self.tested[str(model)] += 1
        return errors(2 * self.error(*_read(model)))

    def opponents(
        self, data: Path, model: Path, points: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        return {
            "constant": {"kind": "mean field per step", **errors(1.0)},
            "linear": {"kind": "ridge per step", **errors(20 / len(points))},
        }


def errors(nrmse: float) -> dict[str, Any]:
    """Of one field whose spread is 10, as `Evaluation.to_dict` gives them."""
    field = {
        "mse": (10 * nrmse) ** 2,
        "rmse": 10 * nrmse,
        "nrmse": nrmse,
        "spread": 10.0,
        "p50": nrmse,
        "p95": 2 * nrmse,
        "max": 3 * nrmse,
        "t": TIMES,
        "nrmse_over_t": [nrmse, nrmse],
        "simulations": {"8": nrmse},
    }
    return {"value": nrmse, "simulations": 8, "per_field": {"temperature": field}}


def study(
    out: Path,
    runner: FakeRunner,
    scores: FakeScores,
    *,
    of: Campaign | None = None,
    text: str = ARMS,
    seeds: int = 2,
    tune: bool = False,
    keep_data: bool = False,
    jobs: int = 1,
) -> Study:
    comparison = Comparison(of or campaign(), arms(text), seeds, tune, out, jobs, keep_data)
    return Study(comparison, runner, scores, lambda text: None)


def _read(model: Path) -> tuple[Campaign, str]:
    chosen = Campaign.model_validate_json((model / "model.json").read_text())
    return chosen, "last" if model.name == "model" else "best"
