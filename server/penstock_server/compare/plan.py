"""Which campaigns a comparison runs, and with which settings each; pure, `study` goes by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_server.compare.arms import LAST, Arm, Recipe, Setting
from penstock_server.compare.errors import CompareError
from penstock_server.config import Campaign

PREFIXED = ("random", "sobol", "halton", "csv")  # samplers whose first N points are those of N


@dataclass(frozen=True)
class Run:
    """One campaign: a seed (counted from 0), what it trains from, a recipe."""

    seed: int
    source: str
    simulations: int | None  # stored ones that it trains from; None: streamed
    recipe: Recipe

    @property
    def key(self) -> str:
        """Its name in files, unique within a comparison."""
        return f"seed-{self.seed}/{self.source}_{self.recipe.name}"

    @property
    def words(self) -> str:
        recipe = self.recipe
        return (
            f"seed {self.seed}, {self.source}, {recipe.schedule}, "
            f"weight decay {recipe.weight_decay:g}"
        )


@dataclass(frozen=True)
class First:
    """What the first run of a seed leaves for the others."""

    data: Path
    model: Path  # its normalisation is everybody's
    complete: int  # training simulations that stand in the data, from the first on


def own_setting(campaign: Campaign) -> Setting:
    """The campaign's own, without tuning."""
    return Setting(Recipe(campaign.training.schedule, campaign.training.weight_decay), LAST)


def runs_of(
    seed: int, arms: Sequence[Arm], recipes: Mapping[str, Sequence[Recipe]]
) -> tuple[Run, ...]:
    """The runs of a seed, each once, an online one first; recipes: arm -> what it runs."""
    runs: dict[str, Run] = {}
    for arm in sorted(arms, key=lambda arm: not arm.online):
        for recipe in recipes[arm.name]:
            run = Run(seed, arm.source, arm.simulations, recipe)
            runs[run.key] = run
    return tuple(runs.values())


def overrides(run: Run, campaign: Campaign, batches: int, first: First | None) -> list[str]:
    """The texts of --set for a run; `first` is None for the first of its seed.

    design.test stays as it is, because ids and with them the seeds of simulations depend on it;
    validation.test = false sees to it that no run looks at test simulations.
    """
    settings: dict[str, object] = {
        "seed": campaign.seed + run.seed,
        "stop.batches": batches,
        "training.schedule": run.recipe.schedule,
        "training.weight_decay": run.recipe.weight_decay,
        "validation.test": False,
        "validation.opponents": False,
    }
    if first is None:
        settings |= {"mode": "online", "keep": "all"}
    elif run.simulations is None:
        settings |= {"mode": "online", "keep": "none"}
    else:
        settings |= {
            "mode": "offline",
            "keep": "none",
            "offline.dataset": str(first.data),
            "design.simulations": min(run.simulations, first.complete),
        }
    if first is not None:
        settings["training.normalisation"] = str(first.model)
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def budget(campaign: Campaign, arms: Sequence[Arm]) -> int:
    """The batches of every arm. Raises CompareError for a campaign that cannot be compared."""
    if campaign.mode != "online":
        raise CompareError(
            f'A comparison sets mode and keep itself and needs mode = "online", got '
            f'mode = "{campaign.mode}". Leave it out.'
        )
    if campaign.design.validation == 0 or campaign.design.test == 0:
        raise CompareError(
            "A comparison chooses by validation and reports on test simulations: set "
            f"design.validation and design.test, got {campaign.design.validation} and "
            f"{campaign.design.test}."
        )
    if campaign.stop.seconds is not None or campaign.stop.target_error is not None:
        raise CompareError(
            "All arms train the same number of batches: leave out stop.seconds and "
            "stop.target_error."
        )
    if campaign.training.normalisation is not None:
        raise CompareError(
            "A comparison takes the normalisation of each seed's first run for all arms: leave "
            "out training.normalisation."
        )
    batches = campaign.planned_batches
    if batches is None:
        raise CompareError(
            "All arms train the same number of batches: set stop.batches, or solver.steps "
            "together with reservoir.draws_per_sample."
        )
    _check_sampler(campaign, arms)
    return batches


def _check_sampler(campaign: Campaign, arms: Sequence[Arm]) -> None:
    """The first N simulations of the stream have to be those of a campaign with N."""
    sampler, total = campaign.design.sampler, campaign.design.simulations
    fewer = [arm.name for arm in arms if (arm.simulations or total) < total]
    if fewer and sampler not in PREFIXED and ":" not in sampler:
        raise CompareError(
            f"The first simulations of the stream are the data of {', '.join(fewer)}, but "
            f'sampler = "{sampler}" gives other points for fewer simulations. Set '
            f"design.sampler to one of {', '.join(PREFIXED)}."
        )
