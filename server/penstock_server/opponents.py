"""The solver and its coarser versions as opponents of a trained network; `penstock opponents`.

"So many times faster" means something only against the coarsest solver that is as accurate as the
network. Held-out simulations of a run are solved again as they were, and on coarser grids, whose
fields are interpolated to the fine one; errors and seconds of each go into RUN/opponents.json.
"""

from __future__ import annotations

import csv
import math
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from penstock_server.config import Campaign, load
from penstock_server.dataset import DataSet
from penstock_server.design import draw
from penstock_server.evaluation import Predictor, Trajectory, evaluate, network
from penstock_server.json_file import write_json
from penstock_server.predict import open_model
from penstock_server.supervisor import run_campaign
from penstock_server.try_desk import Work
from penstock_server.try_solver import program, run
from penstock_server.wiring import problem_of
from penstock_surrogates.problem import Problem
from penstock_surrogates.storage import TrainedSurrogate

FORMAT = "penstock-opponents-1"
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}  # of interpolation, by axes
REPEATS = 20  # predictions of the network that are timed
TRIAL_S = 600.0

Points = Sequence[Mapping[str, float]]


class OpponentsError(RuntimeError):
    """The comparison cannot be made; the text says why and what to do."""


@dataclass(frozen=True)
class Version:
    """A version of the solver: its command, and the grid that it computes on."""

    value: int
    command: list[str]
    shape: list[int]
    nrmse: float
    seconds_per_simulation: float


@dataclass(frozen=True)
class Vary:
    """The option of the solver's command that sets its grid, and the values to try."""

    option: str
    values: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Vary:
        """From "n=8,16,32" or "--n=8,16,32". Raises OpponentsError."""
        option, equals, values = text.lstrip("-").partition("=")
        try:
            numbers = tuple(sorted({int(value) for value in values.split(",")}))
        except ValueError:
            numbers = ()
        if not (option and equals and numbers) or numbers[0] < 2:
            raise OpponentsError(
                f"--vary expects the solver's grid option with values, such as n=8,16,32; got "
                f"{text!r}."
            )
        return cls(f"--{option}", numbers)

    def present(self, command: Sequence[str]) -> int:
        """The value in the campaign's command. Raises OpponentsError."""
        for i, word in enumerate(command[:-1]):
            if word == self.option and command[i + 1].isdecimal():
                return int(command[i + 1])
        raise OpponentsError(
            f"The solver's command has no option {self.option} with a whole number: "
            f"{shlex.join(command)}. Name the option that sets its grid."
        )

    def command(self, command: Sequence[str], value: int) -> list[str]:
        """The command with another value."""
        words = list(command)
        words[words.index(self.option) + 1] = str(value)
        return words


def opponents(
    folder: Path, vary: Vary, n: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Solves and measures; writes opponents.json and gives its content.

    Raises OpponentsError, PredictError, SolverError or CampaignFailed.
    """
    campaign = load(folder / "campaign.toml")
    _check(campaign)
    surrogate = open_model(folder)
    now = vary.present(campaign.solver.command)
    finer = [value for value in vary.values if value >= now]
    if finer:
        raise OpponentsError(
            f"The run's grid has {vary.option} {now}; coarser values are below it, got {finer}."
        )
    points = draw(campaign)
    role = "test" if points["test"] else "validation"
    chosen = points[role][:n]
    if not chosen:
        raise OpponentsError(
            "The run has no held-out simulations to compare on: design.validation, design.test."
        )
    scratch = Path(tempfile.mkdtemp(prefix="penstock-opponents-"))
    try:
        say(f"Solving {len(chosen)} {role} simulations as in the run.")
        truth = solved(campaign, chosen, scratch / "truth")
        problem = problem_of(campaign)
        predict = network(surrogate.model, surrogate.normalisation, problem)
        error = evaluate(predict, problem, truth).value
        versions = []
        for value in vary.values:
            say(f"Solving them with {vary.option} {value}.")
            coarse = coarser(campaign, vary, now, value)
            found = solved(coarse, chosen, scratch / f"at-{value}")
            versions.append(
                Version(
                    value,
                    list(coarse.solver.command),
                    [*next(iter(coarse.step_fields.values())).shape],
                    evaluate(interpolated(found, problem), problem, truth).value,
                    seconds(coarse, chosen, scratch),
                )
            )
        result = {
            "format": FORMAT,
            "role": role,
            "simulations": len(truth),
            "solver": {
                "command": list(campaign.solver.command),
                "seconds_per_simulation": seconds(campaign, chosen, scratch),
            },
            "surrogate": {
                "nrmse": error,
                "seconds_per_simulation": seconds_of(surrogate, truth[0]),
            },
            "coarser": [asdict(version) for version in versions],
            "equal": equal(error, versions),
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(folder / "opponents.json", result)
    return result


def _check(campaign: Campaign) -> None:
    for name, spec in campaign.fields.items():
        if spec.crop or spec.stride or spec.keep_components:
            raise OpponentsError(
                f"{name} is cropped, strided or reduced on its way; grids of other sizes cannot be "
                "held against it."
            )
    if campaign.input_fields:
        raise OpponentsError("Input fields have a grid of their own, which would have to change.")
    axes = max(len(spec.grid_shape) for spec in campaign.step_fields.values())
    if not 1 <= axes <= max(MODES):
        raise OpponentsError(f"Fields of 1 to {max(MODES)} axes are interpolated, got {axes}.")


def coarser(campaign: Campaign, vary: Vary, now: int, value: int) -> Campaign:
    """The campaign on a coarser grid: every axis as long as the option's value follows it."""
    fields = {
        name: spec.model_copy(
            update={"shape": tuple(value if length == now else length for length in spec.shape)}
        )
        for name, spec in campaign.fields.items()
    }
    command = tuple(vary.command(campaign.solver.command, value))
    solver = campaign.solver.model_copy(update={"command": command})
    return campaign.model_copy(update={"fields": fields, "solver": solver})


def solved(campaign: Campaign, points: Points, folder: Path) -> list[Trajectory]:
    """The simulations of these points, by a campaign that only stores them."""
    folder.mkdir()
    names = list(campaign.design.parameters)
    with (folder / "points.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        rows.writerows([repr(point[name]) for name in names] for point in points)
    texts = [
        "mode=store",
        "keep=none",
        "design.sampler=csv",
        f"design.file={folder / 'points.csv'}",
        f"design.simulations={len(points)}",
        "design.validation=0",
        "design.test=0",
        "design.options={}",
        "stop={}",
    ]
    campaign.save(folder / "campaign.toml")
    outcome = run_campaign(load(folder / "campaign.toml", texts), folder)
    data = DataSet(outcome.folder / "data.h5")
    rows_found = data.find("train", points)
    missing = rows_found.count(None)
    if missing:
        raise OpponentsError(
            f"{missing} of {len(points)} simulations failed with the command "
            f"{shlex.join(campaign.solver.command)}; `penstock try` shows why."
        )
    return [data.trajectory("train", row) for row in rows_found if row is not None]


def interpolated(found: Sequence[Trajectory], problem: Problem) -> Predictor:
    """Coarse fields on the fine grid, multilinearly; nodes cover the box on both, ends included."""
    known = {tuple(each.parameters.tolist()): each for each in found}

    def predict(trajectory: Trajectory) -> dict[str, Tensor]:
        coarse = known[tuple(trajectory.parameters.tolist())]
        return {
            name: _resized(coarse.fields[name], spec.shape, spec.components)
            for name, spec in problem.fields.items()
        }

    return predict


def _resized(values: Tensor, shape: tuple[int, ...], components: int) -> Tensor:
    """(k, *coarse) -> (k, *shape); components are the trailing axis, if there are several."""
    grid = shape[:-1] if components > 1 else shape
    channels = values.movedim(-1, 1) if components > 1 else values.unsqueeze(1)  # (k, c, *coarse)
    fine = interpolate(channels.double(), size=grid, mode=MODES[len(grid)], align_corners=True)
    return fine.movedim(1, -1) if components > 1 else fine.squeeze(1)


def seconds(campaign: Campaign, points: Points, scratch: Path) -> float:
    """Wall time of one simulation, streamed to a server that only counts; the median.

    From the assignment to the end, so that the start of the process is not in it; nor is the first
    simulation, in which caches fill.
    """
    argv, environment = program((), campaign)
    work = Work(tuple(dict(point) for point in [points[0], *points]))
    trial = run(argv, argv, environment, work, campaign, TRIAL_S, scratch)
    took = [
        seen.ended_s - seen.assigned_s
        for seen in list(trial.counts.simulations.values())[1:]
        if seen.ended_s is not None and seen.outcome == "ended"
    ]
    if not took:
        raise OpponentsError(
            f"{shlex.join(argv)} finished no simulation alone; `penstock try` shows why."
        )
    return statistics.median(took)


def seconds_of(surrogate: TrainedSurrogate, like: Trajectory) -> float:
    """Wall time of the network for all steps of one simulation; the median, on one thread."""
    names = surrogate.problem.parameter_names
    given = {name: float(value) for name, value in zip(names, like.parameters, strict=True)}
    times = [0.0 if math.isnan(t) else t for t in like.t.tolist()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        surrogate.predict(given, t=times)
        took.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return statistics.median(took)


def equal(error: float, versions: Sequence[Version]) -> int | None:
    """The coarsest version that is as accurate as the network; None if none is."""
    good = [i for i, version in enumerate(versions) if version.nrmse <= error]
    return min(good, key=lambda i: versions[i].value, default=None)


def describe(result: Mapping[str, Any]) -> list[str]:
    """The table for a terminal, and the sentence that counts."""
    solver, own = result["solver"], result["surrogate"]
    lines = [
        f"On {result['simulations']} {result['role']} simulations:",
        f"  {'solver of the run':<24} {1000 * solver['seconds_per_simulation']:10.4g} ms",
    ]
    for each in result["coarser"]:
        shape = " x ".join(map(str, each["shape"]))
        lines.append(
            f"  {'solver at ' + shape:<24} {1000 * each['seconds_per_simulation']:10.4g} ms   "
            f"nRMSE {each['nrmse']:.3g}"
        )
    lines.append(
        f"  {'network':<24} {1000 * own['seconds_per_simulation']:10.4g} ms   "
        f"nRMSE {own['nrmse']:.3g}"
    )
    if result["equal"] is None:
        lines.append("No coarser solver that was tried is as accurate as the network.")
    else:
        rival = result["coarser"][result["equal"]]
        times = rival["seconds_per_simulation"] / own["seconds_per_simulation"]
        shape = " x ".join(map(str, rival["shape"]))
        word = "faster" if times >= 1 else "slower"
        factor = times if times >= 1 else 1 / times
        lines.append(
            f"Against the coarsest solver of equal error, {shape}, the network is {factor:.3g} "
            f"times {word}."
        )
    return lines
