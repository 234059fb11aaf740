"""The arms of a comparison and the settings that each may choose from; pure, `study` goes by them.

An arm is a way to train: *online* from the stream, or *offline* from so many stored simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from penstock_server.compare.errors import CompareError

ONLINE, SMALL, ALL = "online", "offline-small", "offline-all"
OFFLINE = "offline-"
SCHEDULES = ("cosine", "step")
WEIGHT_DECAYS = (0.0, 1e-5, 1e-4)
LAST, BEST = "last", "best"
CHECKPOINTS = (LAST, BEST)


@dataclass(frozen=True)
class Recipe:
    """What one training run may vary."""

    schedule: str
    weight_decay: float

    @property
    def name(self) -> str:
        return f"{self.schedule.replace(':', '.')}-wd{self.weight_decay:g}"


@dataclass(frozen=True)
class Setting:
    """A recipe, and which of the run's two networks counts."""

    recipe: Recipe
    checkpoint: str  # LAST or BEST, that of the least validation error

    def __str__(self) -> str:
        recipe = self.recipe
        return f"{recipe.schedule}, weight decay {recipe.weight_decay:g}, {self.checkpoint}"


GRID = tuple(Recipe(*pair) for pair in product(SCHEDULES, WEIGHT_DECAYS))


@dataclass(frozen=True)
class Arm:
    """`simulations`: how many stored ones it trains from; None: the stream of all of them.

    With `fixed` the arm has that setting and does not tune.
    """

    name: str
    simulations: int | None = None
    fixed: Setting | None = None

    @property
    def online(self) -> bool:
        return self.simulations is None

    @property
    def source(self) -> str:
        """What it trains from; arms of one source share their runs."""
        return ONLINE if self.simulations is None else f"{OFFLINE}{self.simulations}"


def parse_arms(text: str, small: int, simulations: int) -> tuple[Arm, ...]:
    """From "online,offline-small,offline-25"; `simulations` is what the online arm streams.

    Raises CompareError; without an online arm there is neither data nor anything to compare with.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    arms = [_arm(name, small, simulations) for name in names]
    if ONLINE not in names:
        raise CompareError(
            f"--arms needs {ONLINE}: its first run stores the data of the others, and all are "
            f"compared with it; got {text!r}."
        )
    sources = [arm.source for arm in arms]
    for arm in arms:
        if sources.count(arm.source) > 1:
            raise CompareError(
                f"--arms has {arm.name}, which is {arm.source}, more than once: {text}."
            )
    return tuple(sorted(arms, key=lambda arm: not arm.online))  # the online arm first


def _arm(name: str, small: int, simulations: int) -> Arm:
    if name == ONLINE:
        return Arm(ONLINE)
    size = {SMALL: str(small), ALL: str(simulations)}.get(name, name.removeprefix(OFFLINE))
    if not name.startswith(OFFLINE) or not size.isdecimal() or int(size) < 1:
        raise CompareError(
            f"An arm is {ONLINE}, {SMALL}, {ALL} or {OFFLINE}N with N simulations, got {name!r}."
        )
    if int(size) > simulations:
        raise CompareError(
            f"The arm {name} needs {size} simulations, but the campaign has design.simulations = "
            f"{simulations}. Ask for fewer, or raise it."
        )
    return Arm(name, int(size))


def choose(errors: Sequence[tuple[Setting, float]]) -> Setting:
    """The setting of the least validation error; of equal ones the first.

    Raises CompareError when none has a finite error.
    """
    finite = [pair for pair in errors if pair[1] < float("inf")]  # NaN is not
    if not finite:
        raise CompareError(
            "No setting of an arm reached a finite validation error; every training diverged. "
            "Lower training.learning_rate."
        )
    return min(finite, key=lambda pair: pair[1])[0]
