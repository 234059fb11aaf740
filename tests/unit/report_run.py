"""A finished run's folder as the report reads it, made by the parts that make real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_validation_core import PROBLEM, STEPS, Held, Stream, a_model, held_out

from penstock_server.best import Best
from penstock_server.coordinator.records import Simulation
from penstock_server.coordinator.store import Store
from penstock_server.history import History
from penstock_server.validation import Settings, conclude
from penstock_server.validator import Validator

CAMPAIGN = """\
name = "{name}"
seed = 1
[solver]
command = ["./solver", "--n", "3"]
workers = 2
steps = 5
[design]
sampler = "sobol"
simulations = 6
validation = 4
test = 3
[design.parameters.a]
low = 0.0
high = 1.0
distribution = "uniform"
[design.parameters.b]
low = -1.0
high = 1.0
distribution = "uniform"
[fields.u]
shape = [3, 3]
unit = "K"
[fields.q]
shape = []
role = "quantity"
[training]
surrogate = "mlp"
learning_rate = {learning_rate}
loss = "mse"
"""
FAULT = {
    "simulation": 12,
    "attempt": 2,
    "message": "the solver said <script>alert('no')</script> & ended",
    "outcome": "given up",
    "next_command": "penstock rerun RUN 12",
}
OPPONENTS = {
    "solver": {"seconds_per_simulation": 2.0, "command": "./solver --n 3"},
    "surrogate": {"seconds_per_simulation": 0.01, "nrmse": 0.05},
    "coarser": [
        {"command": "./solver --n 2", "shape": [2, 2], "seconds_per_simulation": 0.5, "nrmse": 0.04}
    ],
    "equal": 0,
}
DRAWN = {
    "after_batches": 30,
    "names": ["a", "b"],
    "design": {"a": {"mean": 0.5, "std": 0.25}, "b": {"mean": 0.0, "std": 0.5}},
    "drawn": {"a": {"mean": 0.55, "std": 0.25}, "b": {"mean": 0.0, "std": 0.5}},
}


def finished_run(folder: Path, name: str = "small", learning_rate: float = 1e-3) -> Path:
    """Every file that a report reads is there."""
    folder.mkdir(parents=True)
    text = CAMPAIGN.format(name=name, learning_rate=learning_rate)
    (folder / "campaign.toml").write_text(text)
    (folder / "lock").touch()
    a_model(folder / "model")
    held = Held(*held_out("validation", 4, seed=1), *held_out("test", 3, seed=2))
    validator = Validator(PROBLEM, STEPS, held, Stream(6), 1 << 20, Best(folder / "best"))
    validator.check(a_model(folder.with_name("snapshot"), 10), 10)
    settings = Settings(
        coordinator="",
        snapshots="",
        model=str(folder / "model"),
        folder=str(folder),
        problem=PROBLEM.to_dict(),
        steps=STEPS,
        source="",
    )
    report = conclude(validator, settings)
    history = History(folder / "history.csv")
    for batch, loss in ((0, None), (10, 0.5), (20, 0.2), (30, 0.1)):
        progress = {"seconds": batch / 10, "batches": batch, "draws": batch, "loss": loss}
        history.progress(progress, batch // 5)
    write(folder / "summary.json", summary(folder, name, report))
    write(folder / "opponents.json", OPPONENTS)
    write(folder / "drawn.json", DRAWN)
    store = Store(folder / "coordinator.sqlite")
    store.write(simulations())
    store.close()
    return folder


def simulations() -> list[Simulation]:
    roles = ["validation"] * 4 + ["test"] * 3 + ["train"] * 6
    states = ["completed"] * 10 + ["partial", "quarantined", "failed"]
    return [
        Simulation(i, role, {"a": i / 13, "b": i / 13 - 0.5}, i, ["0"], state, attempts=1)
        for i, (role, state) in enumerate(zip(roles, states, strict=True))
    ]


def summary(folder: Path, name: str, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "run": folder.name,
        "state": "trained",
        "why": "drained",
        "simulations": {"requested": 13, "completed": 10, "failed": 1, "quarantined": 1},
        "samples": {"admitted": 24, "trained_unique": 20, "trained_total": 30},
        "batches": 30,
        "throughput": {"draws_per_s": 10.0, "unique_per_s": 7.0},
        "time_share": {"compute": 0.5, "wait_data": 0.25, "validate": 0.05, "other": 0.2},
        "waits_s": {"empty": 0.75},
        "validation": {"value": report["value"]},
        "bytes": {"streamed": 4_000_000, "written_fields": 0},
        "cpu_s": {"solvers": 20.0, "training": 5.0, "server": 2.0, "all": 27.0},
        "faults": [FAULT],
        "seconds": 12.0,
        "seconds_by_phase": {"started": 4.0, "first_batch": 6.0, "trained": 10.0, "ended": 12.0},
    }


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))
