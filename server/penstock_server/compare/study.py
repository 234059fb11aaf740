"""A comparison from the first run to the last figure; `penstock compare` and benchmarks call it.

For each seed: an online run stores the simulations of the seed; all other runs train on the same
ones, with the same initialisation and the same normalisation. The first seed tries every recipe
of the grid and each arm chooses by validation error; the other seeds train what was chosen. Then,
and only then, the chosen networks are shown the test simulations, once. What is finished is never
done again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock_server.compare import plan
from penstock_server.compare.arms import BEST, GRID, LAST, Arm, Recipe, Setting, choose
from penstock_server.compare.errors import CompareError
from penstock_server.compare.plan import First, Run
from penstock_server.compare.records import Records
from penstock_server.compare.runner import Runner, read_summary
from penstock_server.compare.scores import Points, Scores
from penstock_server.config import Campaign
from penstock_server.design import draw

NETWORKS = {LAST: "model", BEST: "best"}  # the folders of a run
COMPLETE = 0.99  # of the online run's simulations, so that offline-all is what it says
KEPT = (
    "batches", "bytes", "cpu_s", "samples", "seconds", "seconds_by_phase", "simulations",
    "time_share",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how."""

    campaign: Campaign
    arms: tuple[Arm, ...]
    seeds: int
    tune: bool
    out: Path
    jobs: int = 1
    keep_data: bool = False


class Study:
    """Runs what is missing; the results are in `records`."""

    def __init__(
        self, comparison: Comparison, runner: Runner, scores: Scores, say: Callable[[str], None]
    ) -> None:
        """Raises CompareError for a campaign that cannot be compared."""
        self.comparison = comparison
        self.batches = plan.budget(comparison.campaign, comparison.arms)
        self.records = Records(comparison.out.resolve())
        self._runner, self._scores, self._say = runner, scores, say

    def run(self) -> None:
        """To the end. Raises CompareError; what is finished by then is kept."""
        with self.records.lock():
            self.records.claim(self._about())
            self.comparison.campaign.save(self._campaign)
            pool = ThreadPoolExecutor(self.comparison.jobs)
            try:
                for seed in range(self.comparison.seeds):
                    self._seed(seed, pool)
            finally:
                self._runner.stop()
                pool.shutdown(cancel_futures=True)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """What each arm chose on the first seed; asked for when its runs are finished."""
        found = self.records.get("settings")
        if found is None:
            chosen = {arm.name: asdict(self._choose(arm)) for arm in self.comparison.arms}
            found = self.records.put("settings", chosen)
        return {
            name: Setting(Recipe(**entry["recipe"]), entry["checkpoint"])
            for name, entry in found.items()
        }

    def tried(self, arm: Arm) -> list[tuple[Setting, float]]:
        """The settings of an arm on the first seed with their validation errors."""
        if arm.fixed is not None:
            return [(arm.fixed, self._validation(arm, arm.fixed))]
        if not self.comparison.tune:
            own = plan.own_setting(self.comparison.campaign)
            return [(own, self._validation(arm, own))]
        return [
            (Setting(recipe, checkpoint), error)
            for recipe in GRID
            for checkpoint, error in self._record(arm, recipe)["validation"].items()
        ]

    def record(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The finished run that an arm counts with."""
        return self._record(arm, self.settings[arm.name].recipe, seed)

    def checkpoint(self, arm: Arm, seed: int) -> str:
        """Which network of an arm counts; the last where a run kept no best one."""
        chosen = self.settings[arm.name].checkpoint
        return chosen if chosen in self.record(arm, seed)["validation"] else LAST

    def first(self, seed: int) -> dict[str, Any]:
        """The run that made a seed's simulations."""
        found = self.records.get(self._runs(seed)[0].key)
        assert found is not None
        return found

    # -- a seed ----------------------------------------------------------------------------------

    def _seed(self, seed: int, pool: ThreadPoolExecutor) -> None:
        wanted = [self._test_name(seed, arm) for arm in self.comparison.arms]
        wanted += [self._opponents_name(seed, n) for n in self.sizes]
        if any(self.records.get(name) is None for name in wanted):
            self._train(seed, pool)
            self._test(seed)
        if not self.comparison.keep_data:
            self._data(seed).unlink(missing_ok=True)

    def _train(self, seed: int, pool: ThreadPoolExecutor) -> None:
        runs = self._runs(seed)
        pool.submit(self._finish, runs[0], None).result()
        first = self._first(seed)
        for run in runs[1:]:
            if run.simulations is None:  # solvers and training at once: it needs the cores alone
                pool.submit(self._finish, run, first).result()
        stored = [run for run in runs if run.simulations is not None]
        futures: list[Future[None]] = [pool.submit(self._finish, run, first) for run in stored]
        for future in as_completed(futures):
            future.result()

    def _test(self, seed: int) -> None:
        """The test simulations are looked at here and nowhere else."""
        first = self._first(seed)
        for arm in self.comparison.arms:
            setting, name = self.settings[arm.name], self._test_name(seed, arm)
            if self.records.get(name) is None:
                folder = self.records.folder / self.record(arm, seed)["folder"]
                network = NETWORKS[self.checkpoint(arm, seed)]
                found = self._scores.test(first.data, folder / network)
                self.records.put(name, found)
                self._say(f"seed {seed}, {arm.name}: test nRMSE {found['value']:.4g} ({setting})")
        points = self._points(seed)
        for n in self.sizes:
            name = self._opponents_name(seed, n)
            if self.records.get(name) is None:
                used = points[: min(n, first.complete)]
                self.records.put(name, self._scores.opponents(first.data, first.model, used))

    def _finish(self, run: Run, first: First | None) -> None:
        """Runs what is not finished, and notes it."""
        if self.records.get(run.key) is not None:
            return
        self._say(f"{run.words}: running")
        texts = plan.overrides(run, self.comparison.campaign, self.batches, first)
        place = self.records.folder / "runs" / run.key
        folder = self._runner.run(self._campaign, texts, place)
        summary = read_summary(folder, self.batches)
        data = folder / "data.h5" if first is None else first.data
        errors = {
            checkpoint: self._scores.validation(data, folder / name)
            for checkpoint, name in NETWORKS.items()
            if (folder / name / "model.json").is_file()
        }
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        record: dict[str, Any] = {
            "folder": str(folder.relative_to(self.records.folder)),
            "recipe": asdict(run.recipe),
            "validation": errors,
            "summary": {key: summary[key] for key in KEPT if key in summary},
        }
        if first is None:
            record["complete"] = self._complete(data, run.seed)
        self.records.put(run.key, record)
        told = ", ".join(f"{error:.4g} ({name})" for name, error in errors.items())
        self._say(f"{run.words}: {summary['seconds']:.0f} s, validation nRMSE {told}")

    # -- what there is ---------------------------------------------------------------------------

    @property
    def sizes(self) -> list[int]:
        """Numbers of training simulations that the opponents are fitted on."""
        total = self.comparison.campaign.design.simulations
        return sorted({total, *(arm.simulations or total for arm in self.comparison.arms)})

    def test_figures(self, arm: Arm, seed: int) -> dict[str, Any]:
        """An arm's errors on the test simulations."""
        found = self.records.get(self._test_name(seed, arm))
        assert found is not None
        return found

    def opponents(self, simulations: int, seed: int) -> dict[str, Any]:
        """The opponents' errors on the test simulations."""
        found = self.records.get(self._opponents_name(seed, simulations))
        assert found is not None
        return found

    @property
    def _campaign(self) -> Path:
        return self.records.folder / "campaign.toml"

    def _about(self) -> dict[str, Any]:
        """What may not change between two calls; the number of seeds may."""
        comparison = self.comparison
        return {
            "campaign": comparison.campaign.model_dump(mode="json", exclude_none=True),
            "arms": {arm.name: asdict(arm) for arm in comparison.arms},
            "tune": comparison.tune,
        }

    def _runs(self, seed: int) -> tuple[Run, ...]:
        return plan.runs_of(seed, self.comparison.arms, self._recipes(seed))

    def _recipes(self, seed: int) -> Mapping[str, Sequence[Recipe]]:
        arms = self.comparison.arms
        if seed > 0:
            return {arm.name: [self.settings[arm.name].recipe] for arm in arms}
        own = plan.own_setting(self.comparison.campaign).recipe
        common = GRID if self.comparison.tune else (own,)
        return {arm.name: [arm.fixed.recipe] if arm.fixed else common for arm in arms}

    def _choose(self, arm: Arm) -> Setting:
        return choose(self.tried(arm))

    def _validation(self, arm: Arm, setting: Setting) -> float:
        errors = self._record(arm, setting.recipe)["validation"]
        return float(errors.get(setting.checkpoint, errors[LAST]))

    def _record(self, arm: Arm, recipe: Recipe, seed: int = 0) -> dict[str, Any]:
        found = self.records.get(Run(seed, arm.source, arm.simulations, recipe).key)
        assert found is not None
        return found

    def _first(self, seed: int) -> First:
        record, data = self.first(seed), self._data(seed)
        if not data.is_file():
            raise CompareError(
                f"The simulations of seed {seed} are gone: there is no {data}, and they cannot be "
                f"made again with the same normalisation. Remove runs/seed-{seed} and "
                f"records/seed-{seed} of {self.records.folder}, and the seed starts anew."
            )
        folder = self.records.folder / record["folder"]
        return First(data, folder / NETWORKS[LAST], int(record["complete"]))

    def _data(self, seed: int) -> Path:
        return self.records.folder / str(self.first(seed)["folder"]) / "data.h5"

    def _complete(self, data: Path, seed: int) -> int:
        wanted = self._points(seed)
        n = self._scores.complete(data, wanted)
        if n < COMPLETE * len(wanted):
            raise CompareError(
                f"The online run of seed {seed} was to store {len(wanted)} training simulations, "
                f"but {data} has only the first {n} without a gap. Either the next one failed, "
                "which the run's summary.json counts and its logs explain: mend the solver or "
                "narrow its parameters. Or training ended before it came: give it more batches, "
                "or fewer simulations."
            )
        return n

    def _points(self, seed: int) -> Points:
        campaign = self.comparison.campaign
        return draw(campaign.model_copy(update={"seed": campaign.seed + seed}))["train"]

    @staticmethod
    def _test_name(seed: int, arm: Arm) -> str:
        return f"seed-{seed}/test_{arm.name}"

    @staticmethod
    def _opponents_name(seed: int, simulations: int) -> str:
        return f"seed-{seed}/opponents_{simulations}"
