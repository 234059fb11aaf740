"""Streamed against stored: the test error of the same network at equal batches, seed by seed.

The arms, budget, tuning, seeds and metric are those of `penstock compare`: an online run of each
seed stores the simulations, the offline arms train on the same ones, all with the same
initialisation and normalisation; settings are chosen on validation simulations of the first seed,
figures are on test simulations. holds: the geometric mean of the paired MSE ratios is at most 0.32
against offline-small (a gain of 68 %) and at most 1.10 against offline-all.

    python benchmarks/online_vs_offline.py --problem heat --seeds 5

With --out it can be interrupted and started again. --first-seed goes on where an earlier study
ended; pooled.py joins what both have found. --optimizer sc23 adds both arms as they were trained at
SC'23, untuned: Adam with learning rate 1e-3, weight decay 1e-4, halving schedule. The heat problem
is linear in its temperatures, which the row of the linear emulator shows; it serves for the
comparison with the papers only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

import penstock_server.compare as comparing
from penstock_server.compare import Arm, Recipe, Setting, output, report
from penstock_server.compare.arms import LAST, ONLINE, SMALL
from penstock_server.compare.result import BAR_ALL
from penstock_server.compare.statistics import paired
from penstock_server.config import Campaign, parse

BAR = 0.32
SC23 = Setting(Recipe("step", 1e-4), LAST)
TEMPERATURES = "\n".join(f"T{i} = {{ low = 100, high = 500 }}" for i in range(5))
PROBLEMS = {
    "heat": ("heat_numpy", TEMPERATURES),
    "heat_nonlinear": (
        "heat_nonlinear_numpy",
        f'alpha = {{ low = 0.01, high = 1, distribution = "log-uniform" }}\n{TEMPERATURES}',
    ),
}
Size = dict[str, float]
FULL: Size = {
    "n": 100, "steps": 100, "simulations": 2000, "batches": 25_000, "capacity": 40_000,
    "threshold": 1000, "validation": 30, "test": 200, "every": 2500, "small": 100, "draws": 1.25,
}  # fmt: skip
QUICK: Size = {
    "n": 16, "steps": 20, "simulations": 60, "batches": 600, "capacity": 400,
    "threshold": 100, "validation": 6, "test": 10, "every": 100, "small": 6, "draws": 5,
}  # fmt: skip

CAMPAIGN = """
name = "{name}"
seed = 1
[solver]
command = [
    "{{python}}", "-m", "penstock_solvers.{solver}", "--n", "{n}", "--steps", "{steps}",
]
workers = 2
steps = {steps}
[design]
sampler = "random"
simulations = {simulations}
validation = {validation}
test = {test}
[design.parameters]
{parameters}
[fields.temperature]
shape = [{n}, {n}]
unit = "K"
[reservoir]
capacity = {capacity}
threshold = {threshold}
draws_per_sample = {draws}
[training]
options = {{ hidden = [256, 256] }}
batch_size = 10
learning_rate = 1e-3
schedule = "cosine"
[stop]
batches = {batches}
[validation]
every_batches = {every}
"""


def campaign_of(problem: str, size: Size) -> Campaign:
    """The papers' heat study, or the same protocol on the nonlinear problem."""
    solver, parameters = PROBLEMS[problem]
    name = f"online-vs-offline-{problem.replace('_', '-')}"
    return parse(CAMPAIGN.format(name=name, solver=solver, parameters=parameters, **size))


def sc23_arms(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """The online and the small arm once more, with the SC'23 optimiser."""
    chosen = [arm for arm in arms if arm.name in (ONLINE, SMALL)]
    return tuple(replace(arm, name=f"{arm.name}, SC'23", fixed=SC23) for arm in chosen)


def holds(pairs: list[dict[str, Any]]) -> bool:
    """Whether every tuned pair that was compared stays within its bar; recomputed from `rows`."""
    tuned = [pair for pair in pairs if pair["ours"] == ONLINE]
    judged = [pair for pair in tuned if pair["peer"] == SMALL or pair["bar"] == BAR_ALL]
    ratios = [(pair["mse_ratio"], pair["bar"]) for pair in judged]  # a ratio is None: diverged
    return bool(judged) and all(ratio is not None and ratio["mean"] <= bar for ratio, bar in ratios)


def linear_ratio(result: dict[str, Any]) -> dict[str, Any] | None:
    """The online network's test MSE over that of ridge on all simulations; None: not defined."""
    errors = {row["seed"]: row["mse"] for row in result["rows"] if row["arm"] == ONLINE}
    linear = [row for row in result["opponent_rows"] if row["opponent"] == "linear"]
    most = max((row["simulations"] for row in linear), default=0)
    pairs = [(errors[r["seed"]], r["mse"]) for r in linear if r["simulations"] == most]
    if any(error is None for pair in pairs for error in pair):
        return None
    try:
        return asdict(paired([ours for ours, _ in pairs], [ridge for _, ridge in pairs]))
    except ValueError:
        return None


def mean(spread: dict[str, Any] | None) -> float | None:
    return None if spread is None else float(spread["mean"])


def compare(options: argparse.Namespace, out: Path, console: Console) -> dict[str, Any]:
    """Runs what is missing below `out` and gives the result."""
    size = QUICK if options.quick else FULL
    campaign = campaign_of(options.problem, size)
    campaign = campaign.model_copy(update={"seed": campaign.seed + options.first_seed})
    arms = comparing.parse_arms(options.arms, int(size["small"]), campaign.design.simulations)
    if options.optimizer == "sc23":
        arms += sc23_arms(arms)
    study = comparing.Study(
        comparing.Comparison(
            campaign=campaign,
            arms=arms,
            seeds=options.seeds or (2 if options.quick else 5),
            tune=not options.quick and options.tune,
            out=out,
            jobs=options.jobs,
            keep_data=options.keep_data,
        ),
        comparing.ProcessRunner(),
        comparing.StoredScores(),
        console.print,
    )
    study.run()
    return output.write(study, BAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", choices=sorted(PROBLEMS), default="heat")
    parser.add_argument("--seeds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--first-seed", type=int, default=0, help="the number of the first one")
    parser.add_argument("--arms", default="online,offline-small,offline-all")
    parser.add_argument("--optimizer", choices=["tuned", "sc23"], default="tuned")
    parser.add_argument("--no-tune", dest="tune", action="store_false", help="one setting")
    parser.add_argument("--jobs", type=int, default=1, help="offline runs at the same time")
    parser.add_argument("--out", type=Path, help="keep everything here, and go on from it")
    parser.add_argument("--keep-data", action="store_true", help="the stored simulations too")
    parser.add_argument("--quick", action="store_true", help="small, two seeds, no tuning")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    console = Console(quiet=options.json, soft_wrap=True, markup=False, highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="online-vs-offline-") as scratch:
            result = compare(options, options.out or Path(scratch), console)
    except comparing.CompareError as error:
        sys.exit(f"{error}\n{error.detail}")
    for table in report.tables(result):
        console.print(table)
    pairs = {pair["peer"]: pair for pair in result["pairs"] if pair["ours"] == ONLINE}
    main_pair = pairs.get(SMALL) or next(iter(pairs.values()))
    mse = {arm["arm"]: mean(arm["mse"]) for arm in result["arms"]}
    linear = linear_ratio(result)
    console.print(f"online / linear emulator of all simulations, test MSE {report.spread(linear)}")
    print(
        json.dumps(
            {
                "name": f"online_vs_offline/{options.problem}",
                "ours": mse[ONLINE],
                "peer": mse[main_pair["peer"]],
                "ratio": mean(main_pair["mse_ratio"]),
                "unit": "test MSE / field variance",
                "holds": holds(result["pairs"]),
                "pairs": result["pairs"],
                "online_over_linear": linear,
                "rows": result["rows"],
                "opponent_rows": result["opponent_rows"],
            }
        )
    )


if __name__ == "__main__":
    main()
