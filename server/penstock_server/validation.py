"""The validator: a process outside the all-reduce that evaluates snapshots on held-out simulations.

`python -m penstock_server.validation --settings FILE`, started by the supervisor. It fits the
opponents on the training stream, evaluates snapshots as they appear, keeps the best of them, and
ends after the final model. The final and the best model alone are evaluated on the test
simulations. If training ends without a model, the supervisor has to end it.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from penstock.control import Asker, NoAnswer
from penstock.keys import ClientKeys
from penstock.processes import die_with_parent
from penstock_server import examples_file, pictures, snapshot
from penstock_server.best import Best, held
from penstock_server.evaluation import Opponent, network
from penstock_server.json_file import finite, write_json
from penstock_server.metrics import Newest, serve_counts
from penstock_server.references import find
from penstock_server.validator import ROLES, Final, HeldOut, TrainingPeek, Validator
from penstock_surrogates import Problem, load

POLL_S = 0.2


@dataclass(frozen=True)
class Settings:
    """What the supervisor writes into the settings file, as JSON."""

    coordinator: str  # address
    snapshots: str  # folder, of `snapshot.write`
    model: str  # folder; the final model appears there, and none may be there before
    folder: str  # of the run: validation.json, examples.npz, best/ and the picture go there
    problem: dict[str, Any]  # Problem.to_dict()
    steps: int  # most steps of a simulation that arrive
    source: str  # "module:function" that opens (HeldOut, TrainingPeek)
    source_settings: dict[str, Any] = field(default_factory=dict)  # what it is called with
    name: str = "validator/0"
    title: str = ""  # of the picture
    history: str | None = None  # CSV with columns batches and loss, for the picture
    loss: str = "mse"
    every_batches: int = 500
    patience_s: float = 120.0
    test: bool = True  # whether the end looks at the test simulations
    opponents: bool = True  # whether they are fitted
    opponent_bytes: int = 256 << 20
    threads: int = 1
    device: str = "cpu"
    metrics_port: int = 0  # of 127.0.0.1; 0 serves none
    client_keys: str | None = None  # file for asking the coordinator

    @classmethod
    def read(cls, path: Path) -> Settings:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"The validator's settings {path} have unknown keys {', '.join(unknown)}; "
                f"valid are {', '.join(sorted(known))}."
            )
        return cls(**values)


def run(
    settings: Settings,
    held_out: HeldOut,
    peek: TrainingPeek,
    report: Callable[[dict[str, Any]], object],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Report on every snapshot that is due, then on the final model."""
    problem = Problem.from_dict(settings.problem)
    validator = Validator(
        problem,
        settings.steps,
        held_out,
        peek,
        settings.opponent_bytes,
        Best(Path(settings.folder) / "best"),
        roles=ROLES if settings.test else ROLES[:1],
        fits=settings.opponents,
    )
    due = 0  # the first batch whose snapshot is wanted
    while True:
        more = validator.fit()
        if (Path(settings.model) / "model.json").is_file():
            report(conclude(validator, settings))
            return
        found = snapshot.newest(Path(settings.snapshots))
        if found is None or found.batch < due:
            if not more:
                wait(POLL_S)
            continue
        try:
            with held(found.model, Path(settings.snapshots)) as model:
                checked = validator.check(model, found.batch, settings.device)
        except FileNotFoundError:
            continue  # the trainer has pruned it for a newer one meanwhile
        if checked is None:
            due = found.batch + 1  # no simulation to compare with yet
            continue
        due = (found.batch // settings.every_batches + 1) * settings.every_batches
        report(checked)


def conclude(validator: Validator, settings: Settings) -> dict[str, Any]:
    """The final report, with validation.json and the picture beside it in the run's folder."""
    final = validator.finish(Path(settings.model), settings.device)
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "report": final.report,
        "history": [{"batch": b, "value": value} for b, value in validator.history],
        **{role: comparison.to_dict() for role, comparison in final.compared.items()},
        "best": {
            **(final.report["best"] or {}),
            **{role: {"network": found.to_dict()} for role, found in final.best.items()},
        }
        if final.best
        else None,
    }
    write_json(folder / "validation.json", finite(figures))
    report = {**final.report, "picture": None, "examples": None}
    if not final.shown:
        return report
    try:
        draw(folder / "picture.png", validator, final, settings)
        report["picture"] = str(folder / "picture.png")
    except Exception as error:  # a picture that fails must not cost the figures
        report["picture_error"] = f"The picture was not drawn: {error}"
    try:
        write_examples(folder / "examples.npz", validator, final, settings)
        report["examples"] = str(folder / "examples.npz")
    except Exception as error:  # as above
        report["examples_error"] = f"The examples were not written: {error}"
    return report


def write_examples(path: Path, validator: Validator, final: Final, settings: Settings) -> None:
    """A few of the held-out simulations with the final network's predictions."""
    compared = final.compared.get("validation") or final.compared["test"]
    surrogate = load(settings.model, settings.device)
    predict = network(surrogate.model, surrogate.normalisation, validator.problem)
    collected = examples_file.collect(
        validator.problem, final.shown, compared.network, predict, final.report["batch"]
    )
    examples_file.write(path, collected)


def draw(path: Path, validator: Validator, final: Final, settings: Settings) -> None:
    """The picture of the held-out simulation whose error is the median one."""
    compared = final.compared.get("validation") or final.compared["test"]
    name = pictures.most_pictorial(
        {n: (spec.shape, spec.components) for n, spec in validator.problem.fields.items()}
    )
    errors = compared.network.per_field[name]
    ranked = sorted(final.shown, key=lambda shown: errors.simulations[shown.simulation])
    shown = ranked[(len(ranked) - 1) // 2]
    surrogate = load(settings.model, settings.device)
    predicted = network(surrogate.model, surrogate.normalisation, validator.problem)(shown)
    loss = read_history(Path(settings.history)) if settings.history else []
    pictures.demo_picture(
        path,
        pictures.Example(
            field=name,
            unit=validator.problem.fields[name].unit,
            components=validator.problem.fields[name].components,
            simulation=shown.simulation,
            role=shown.role,
            parameters=dict(
                zip(validator.problem.parameter_names, shown.parameters.tolist(), strict=True)
            ),
            t=shown.t.cpu().numpy(),
            truth=shown.fields[name].cpu().numpy(),
            prediction=predicted[name].cpu().numpy(),
        ),
        pictures.Curves(
            loss=loss,
            loss_name=settings.loss,
            validation=validator.history,
            constant=compared.constant.evaluation.value if compared.constant else None,
            linear=compared.linear.evaluation.value if compared.linear else None,
            over_t=pictures.OverTime(
                t=errors.t,
                network=errors.nrmse_over_t,
                constant=_over_t(compared.constant, name),
                linear=_over_t(compared.linear, name),
            ),
        ),
        title=settings.title,
    )


def _over_t(opponent: Opponent | None, name: str) -> tuple[float, ...]:
    return opponent.evaluation.per_field[name].nrmse_over_t if opponent else ()


def read_history(path: Path) -> list[tuple[int, float]]:
    """(batches, loss) from the run's history.csv; rows without a loss are left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(float(row["batches"])), float(row["loss"]))
        for row in rows
        if row.get("batches") and row.get("loss")
    ]


def open_source(settings: Settings) -> tuple[HeldOut, TrainingPeek]:
    """What the settings name as the source of simulations and training samples."""
    opened: tuple[HeldOut, TrainingPeek] = find(settings.source, "source")(settings.source_settings)
    return opened


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="penstock_server.validation")
    parser.add_argument("--settings", type=Path, required=True, help="JSON; see Settings")
    settings = Settings.read(parser.parse_args(arguments).settings)
    die_with_parent(signal.SIGTERM)
    torch.set_num_threads(settings.threads)
    held_out, peek = open_source(settings)
    newest = Newest()
    serve_counts(settings.metrics_port, "validator", {}, newest.counts)
    keys = ClientKeys.given(settings.client_keys)
    with Asker(settings.coordinator, settings.name, keys=keys) as asker:

        def report(body: dict[str, Any]) -> None:
            newest.take(body)
            asker.ask("validated", timeout_s=settings.patience_s, **body)

        try:
            run(settings, held_out, peek, report)
        except NoAnswer as silence:
            print(f"The validator ends: {silence}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
