"""A random worker is killed every 5 s: all simulations complete, and the network is as good.

A campaign of 100 simulations (heat_numpy, paced so that each takes seconds) runs undisturbed with
five seeds of its initial weights and order, on the same simulations, and once more, with a seed of
its own, while a solver process drawn at random gets SIGKILL every 5 s. Each run's error is taken
here, on the same unseen simulations: the network's RMSE over the standard deviation of what the
solver itself gives. A kill hit if the coordinator lost a running simulation by it; else the worker
had just begun, or was between two simulations.
ours: the error of the run with kills; peer: the mean of the undisturbed ones. holds: every
simulation of every run was completed and audited clean, some kills hit, and ours is within two
standard deviations of the peer. (Were it drawn from the same normal distribution, it would be
outside of twice a standard deviation that five runs gave in one case of seven.)
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

from whole import Run, worker_pids

from penstock_server.coordinator import Store
from penstock_server.coordinator.records import Lease, Simulation
from penstock_solvers.heat_numpy import TEMPERATURES, HeatNumpy, solve
from penstock_surrogates import load

N, STEPS = 24, 50
DEVIATIONS = 2.0
KILLED = "SIGKILL"  # in what the coordinator notes of a lost lease

CAMPAIGN = """
name = "killed-workers"
seed = {seed}
[solver]
command = [
    "{{python}}", "-m", "penstock_solvers.heat_numpy",
    "--n", "{n}", "--steps", "{steps}", "--pause", "{pause_ms}",
]
workers = {workers}
steps = {steps}
[design]
sampler = "csv"
file = "points.csv"
simulations = {simulations}
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{n}, {n}]
[reservoir]
capacity = {capacity}
threshold = {threshold}
draws_per_sample = 4.0
[training]
options = {{ hidden = [64, 64] }}
batch_size = 10
learning_rate = 3e-3
schedule = "cosine"
[liveness]
beat_s = 0.5
[audit]
checksums = true
"""


class Paced(Run):
    """A run of heat_numpy."""

    solver = "penstock_solvers.heat_numpy"


def points(n: int, seed: int) -> list[dict[str, float]]:
    """Inputs from the box, by a stream of their own."""
    rng = np.random.default_rng(seed)
    return [
        {name: float(rng.uniform(*box)) for name, box in TEMPERATURES.items()} for _ in range(n)
    ]


class Unseen:
    """Simulations that no run sees, as the solver has them."""

    def __init__(self, n: int) -> None:
        setup = HeatNumpy(N)
        self.points = points(n, seed=2)
        solved = [list(solve(point, setup, STEPS)) for point in self.points]
        self.t = [t for t, _ in solved[0]]
        self.fields = np.array([[u for _, u in steps] for steps in solved])  # (b, step, y, x)

    def error(self, model: Path) -> float:
        """RMSE of a trained network over the spread of the fields."""
        parameters = {name: torch.tensor([p[name] for p in self.points]) for name in TEMPERATURES}
        predicted = load(model).predict(parameters, self.t)["temperature"].double().numpy()
        missed = np.sqrt(np.mean((predicted - self.fields) ** 2))
        return float(missed / self.fields.std())


def run_once(
    folder: Path, options: argparse.Namespace, seed: int, unseen: Unseen, every_s: float | None
) -> dict[str, Any]:
    """One run, with a kill every so many seconds."""
    folder.mkdir()
    campaign = folder / "campaign.toml"
    with (folder / "points.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(TEMPERATURES))
        writer.writeheader()
        writer.writerows(points(options.simulations, seed=1))
    samples = options.simulations * STEPS
    campaign.write_text(
        CAMPAIGN.format(
            seed=seed, n=N, steps=STEPS, pause_ms=options.pause, workers=options.workers,
            simulations=options.simulations, capacity=samples, threshold=samples // 20,
        )
    )  # fmt: skip
    run = Paced(campaign)
    try:
        run.wait_for(lambda: bool(worker_pids(run)), 120.0)
        kills = kill(run, every_s, random.Random(seed)) if every_s is not None else 0
        code = run.finish(600.0)
    finally:
        run.stop()
    if code:
        raise RuntimeError(f"The run failed:\n{run.output}")
    command = [sys.executable, "-m", "penstock.command", "audit", str(run.folder)]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    if audit.returncode:
        print(audit.stdout, audit.stderr, file=sys.stderr)
    summary = run.summary
    return {
        "seed": seed,
        "error": unseen.error(run.folder / "model"),
        "completed": summary["simulations"]["completed"],
        "seconds": summary["seconds"],
        "clean": audit.returncode == 0,
        "kills": kills,
        **attempts(run.folder / "coordinator.sqlite"),
    }


def kill(run: Paced, every_s: float, rng: random.Random) -> int:
    """Until production is over; how many workers were killed."""
    kills, next_s = 0, time.monotonic() + every_s
    while run.process.poll() is None:
        if "Production is over" in run.output:
            break
        if time.monotonic() >= next_s and (found := worker_pids(run)):
            kills += end(rng.choice(found))
            next_s += every_s
        time.sleep(0.05)
    return kills


def end(pid: int) -> bool:
    """SIGKILL; False if it has ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def attempts(database: Path) -> dict[str, Any]:
    """What the coordinator's books say of the kills."""
    store = Store(database)
    try:
        simulations, leases = store.read(Simulation), store.read(Lease)
    finally:
        store.close()
    lost = [lease for lease in leases if lease.state == "superseded" and KILLED in lease.reason]
    return {
        "hits": len(lost),
        "attempts": dict(sorted(Counter(each.attempts for each in simulations).items())),
        "faults": sum(each.faults for each in simulations),
    }


def show(name: str, row: dict[str, Any]) -> None:
    tried = ", ".join(f"{n} in {k}" for k, n in row["attempts"].items())
    print(
        f"{name:12} seed {row['seed']}: error {row['error']:.4f}, {row['completed']} completed in "
        f"{row['seconds']:.0f} s, {row['kills']} kills, {row['hits']} of them hit; simulations by "
        f"attempts: {tried}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--undisturbed", type=int, default=5, help="runs")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=40.0, help="ms that a step rests")
    parser.add_argument("--quick", action="store_true", help="20 simulations, 2 undisturbed runs")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.simulations, options.undisturbed, options.workers = 20, 2, 2
    unseen = Unseen(40)
    rows = []
    with tempfile.TemporaryDirectory(prefix="killed-workers-") as scratch:
        for seed in range(options.undisturbed + 1):
            killed = seed == options.undisturbed
            every_s = options.every if killed else None
            row = run_once(Path(scratch) / str(seed), options, seed, unseen, every_s)
            rows.append({"name": "killed" if killed else "undisturbed", **row})
            if not options.json:
                show(rows[-1]["name"], row)
    *undisturbed, killed_row = rows
    errors = [row["error"] for row in undisturbed]
    mean, deviation = statistics.mean(errors), statistics.stdev(errors)
    off = abs(killed_row["error"] - mean) / deviation
    whole = all(row["completed"] == options.simulations and row["clean"] for row in rows)
    if not options.json:
        print(
            f"undisturbed {mean:.4f}, standard deviation {deviation:.4f}; with kills "
            f"{killed_row['error']:.4f}, {off:.2f} standard deviations off"
        )
    print(
        json.dumps(
            {
                "name": "killed_workers",
                "ours": killed_row["error"],
                "peer": mean,
                "ratio": killed_row["error"] / mean,
                "unit": "RMSE over the spread of unseen simulations",
                # Two runs have no spread to speak of: then only completeness is judged.
                "holds": whole and killed_row["hits"] > 0 and (options.quick or off <= DEVIATIONS),
                "deviation": deviation,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
