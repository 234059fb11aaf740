"""Reservoir, FIFO and FIRO while the solvers make half of what the trainer could draw.

    python benchmarks/policies.py --seeds 5

Solvers and server share one core, training has another. The pace of the solvers comes from a run
that measures the trainer. For each seed the three policies see the same simulations in the same
order and start from the same weights: first for equally many batches, then for the seconds that
FIFO took for them, from the start of the run to the end of training. FIFO and FIRO draw every
sample once and wait for the next; the reservoir draws again. The errors are on test simulations;
nothing is tuned. holds: at equal batches the reservoir is not worse than either beyond the 95 %
interval of the paired MSE ratio, and at equal seconds it is better than both. Only a machine with
nothing else on its two cores gives figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pinned
from rich.console import Console

from penstock_server.compare import CompareError, ProcessRunner
from penstock_server.compare.records import Records
from penstock_server.compare.report import spread
from penstock_server.compare.statistics import Spread, paired

POLICIES = ("reservoir", "fifo", "firo")
PEERS = ("fifo", "firo")
PACE = 0.5  # of what the trainer draws
FULL = {
    "n": 32, "steps": 100, "batches": 6000, "simulations": 800, "test": 100, "capacity": 3000,
    "threshold": 500,
}  # fmt: skip
QUICK = {
    "n": 32, "steps": 50, "batches": 1000, "simulations": 400, "test": 20, "capacity": 800,
    "threshold": 200,
}  # fmt: skip

CAMPAIGN = """
name = "policies"
[solver]
command = [
    "{{python}}", "-m", "penstock_solvers.heat_numpy", "--n", "{n}", "--steps", "{steps}",
    "--pause", "0",
]
workers = 2
steps = {steps}
[design]
sampler = "random"
simulations = {simulations}
validation = 10
test = {test}
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{n}, {n}]
unit = "K"
[reservoir]
capacity = {capacity}
threshold = {threshold}
[training]
options = {{ hidden = [256, 256] }}
batch_size = 10
optimizer = "pinned:adam"
learning_rate = 1e-3
snapshot_batches = 50
[validation]
every_batches = 100000
opponents = false
"""

Row = dict[str, Any]


class Bench:
    """Runs of the campaign above, each kept, so that an interrupted benchmark goes on."""

    def __init__(self, out: Path, size: dict[str, int], say: Callable[[str], None]) -> None:
        self.size, self.say = size, say
        self.records = Records(out.resolve())
        taskset = shutil.which("taskset")
        if taskset is None:
            raise CompareError("The policies need taskset: training has a core for itself.")
        others = ",".join(map(str, pinned.apart()))
        child = (sys.executable, "-m", "penstock_server.compare.child")
        self.runner = ProcessRunner((taskset, "-c", others, *child))
        self.campaign = self.records.folder / "campaign.toml"
        self.campaign.parent.mkdir(parents=True, exist_ok=True)
        self.campaign.write_text(CAMPAIGN.format(**size))

    def run(self, name: str, policy: str, seed: int, pause_ms: float, stop: str) -> Row:
        """One run, unless it is finished already."""
        found = self.records.get(name)
        if found is not None:
            return found
        n, steps = self.size["n"], self.size["steps"]
        module = ["{python}", "-m", "penstock_solvers.heat_numpy"]
        options = ["--n", str(n), "--steps", str(steps), "--pause", f"{pause_ms:.4f}"]
        command = json.dumps([*module, *options])
        overrides = [f"solver.command={command}", f'reservoir.policy="{policy}"']
        overrides += [f"seed={seed + 1}", stop]
        folder = self.runner.run(self.campaign, overrides, self.records.folder / "runs" / name)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        row: Row = {"policy": policy, "seed": seed, "stop": stop, "pause_ms": pause_ms}
        row |= measured(summary, steps)
        self.say(
            f"{name}: test nRMSE {row['nrmse']:.4g} after {row['batches']} batches in "
            f"{row['training_s']:.1f} s, {100 * row['waited']:.0f} % of them waiting"
        )
        return self.records.put(name, row)

    def seed(self, seed: int, pause_ms: float) -> list[Row]:
        """The three policies for equally many batches, then for equally many seconds."""
        batches = f"stop.batches={self.size['batches']}"
        turned = POLICIES[seed % 3 :] + POLICIES[: seed % 3]  # no policy always comes first
        rows = {
            policy: self.run(f"seed-{seed}/batches_{policy}", policy, seed, pause_ms, batches)
            for policy in turned
        }
        seconds = f"stop.seconds={rows['fifo']['trained_s']:.3f}"
        later = [
            self.run(f"seed-{seed}/seconds_{policy}", policy, seed, pause_ms, seconds)
            for policy in turned
        ]
        return [
            *({**row, "equal": "batches"} for row in rows.values()),
            *({**row, "equal": "seconds"} for row in later),
        ]

    def pause_ms(self) -> float:
        """Of a step, so that all workers together make PACE of what the trainer draws."""
        stop = f"stop.batches={max(500, self.size['batches'] // 3)}"
        found = self.run("calibration", "reservoir", 0, 1.0, stop)
        wanted_per_s = PACE * float(found["trainer_draws_per_s"])
        pause = 1000 * max(0.0, 2 / wanted_per_s - float(found["step_cpu_s"]))
        self.say(
            f"The trainer draws {found['trainer_draws_per_s']:.0f} samples a second; the solvers "
            f"pause {pause:.3f} ms a step to make {wanted_per_s:.0f}."
        )
        return pause


def measured(summary: dict[str, Any], steps: int) -> Row:
    """What a run says of itself."""
    draws_per_s = summary["throughput"]["draws_per_s"]
    draws = summary["samples"]["trained_total"]
    waited = summary["time_share"]["wait_data"]
    made = summary["simulations"]["completed"] * steps
    return {
        "nrmse": summary["validation"]["test"]["value"],
        "batches": summary["batches"],
        "draws": draws,
        "unique": summary["samples"]["trained_unique"],
        "training_s": draws / draws_per_s,
        "trained_s": summary["seconds_by_phase"]["trained"],  # from the start of the run
        "draws_per_s": draws_per_s,
        "unique_per_s": summary["throughput"]["unique_per_s"],
        "waited": waited,
        "trainer_draws_per_s": draws_per_s / (1 - waited),
        "step_cpu_s": summary["cpu_s"]["solvers"] / max(1, made),
    }


def ratios(rows: list[Row]) -> dict[tuple[str, str], Spread]:
    """(equal, peer) -> of the test MSE, reservoir over peer, paired by seed."""

    def mse(equal: str, policy: str) -> list[float]:
        found = [row for row in rows if row["equal"] == equal and row["policy"] == policy]
        return [row["nrmse"] ** 2 for row in sorted(found, key=lambda row: row["seed"])]

    return {
        (equal, peer): paired(mse(equal, "reservoir"), mse(equal, peer))
        for equal in ("batches", "seconds")
        for peer in PEERS
    }


def holds(found: dict[tuple[str, str], Spread]) -> bool:
    """As the docstring says; with one seed there is no interval, and nothing holds."""
    not_worse = [s.low is not None and s.low <= 1 for (e, _), s in found.items() if e == "batches"]
    better = [s.high is not None and s.high < 1 for (e, _), s in found.items() if e == "seconds"]
    return all(not_worse) and all(better)


def bench(out: Path, seeds: int, quick: bool, console: Console) -> dict[str, Any]:
    """The whole benchmark; gives the line of JSON."""
    made = Bench(out, QUICK if quick else FULL, console.print)
    with made.records.lock():
        made.records.claim({"size": made.size, "pace": PACE})
        pause = made.pause_ms()
        rows = [row for seed in range(seeds) for row in made.seed(seed, pause)]
    found = ratios(rows)
    for (equal, peer), ratio in found.items():
        console.print(f"equal {equal}: reservoir / {peer}, test MSE {spread(vars(ratio))}")
    for equal in ("batches", "seconds"):
        for policy in POLICIES:
            mine = [r for r in rows if r["policy"] == policy and r["equal"] == equal]
            console.print(
                f"equal {equal}, {policy}: waited {median(mine, 'waited'):.0%}, "
                f"{median(mine, 'draws_per_s'):.0f} draws/s, "
                f"{median(mine, 'unique_per_s'):.0f} new samples/s (medians)"
            )
    last = [row for row in rows if row["equal"] == "seconds"]
    return {
        "name": "policies",
        "ours": statistics.median(r["nrmse"] ** 2 for r in last if r["policy"] == "reservoir"),
        "peer": statistics.median(r["nrmse"] ** 2 for r in last if r["policy"] == "fifo"),
        "ratio": found["seconds", "fifo"].mean,
        "unit": "test MSE / field variance, at equal seconds",
        "holds": holds(found),
        "ratios": {f"equal {e}, reservoir / {p}": vars(s) for (e, p), s in found.items()},
        "rows": rows,
    }


def median(rows: list[Row], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--out", type=Path, help="keep everything here, and go on from it")
    parser.add_argument("--quick", action="store_true", help="small, two seeds")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    console = Console(quiet=options.json, soft_wrap=True, markup=False, highlight=False)
    with tempfile.TemporaryDirectory(prefix="policies-") as scratch:
        seeds = options.seeds or (2 if options.quick else 5)
        result = bench(options.out or Path(scratch), seeds, options.quick, console)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
