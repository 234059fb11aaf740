"""Which rows of a data set are the simulations of a campaign; the supervisor asks before training.

Simulations are the same if their role and parameters are: ids and seeds don't matter, so that one
data set serves campaigns that take a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.config import Campaign
from penstock_server.coordinator.plan import planned
from penstock_server.dataset import DataSet, DataSetError
from penstock_server.design import Roles

ENOUGH = 0.95  # of each role; solvers fail now and then


@dataclass(frozen=True)
class Matched:
    """rows: role -> rows of the file, in the order of the design. done, absent: campaign's ids."""

    rows: dict[str, list[int]]
    done: list[int]
    absent: list[int]

    @property
    def message(self) -> str:
        """What is to be said about it, or nothing."""
        if not self.absent:
            return ""
        return (
            f"{len(self.absent)} of the campaign's simulations are not in the data set; training "
            "does without them."
        )


def match(campaign: Campaign, data: DataSet, points: Roles, enough: float = ENOUGH) -> Matched:
    """Raises DataSetError when the data set is of another problem, or lacks too much."""
    check(campaign, data)
    found = {role: data.find(role, wanted) for role, wanted in points.items()}
    rows = {role: [row for row in each if row is not None] for role, each in found.items()}
    for role, wanted in points.items():
        if len(rows[role]) < enough * len(wanted):
            raise DataSetError(
                f"{data.path} has {len(rows[role])} of the campaign's {len(wanted)} {role} "
                "simulations, by their parameters. It is of another design: the seed, the sampler "
                f"or the box differ, or fewer were stored (its campaign is {data.campaign!r})."
            )
    turns = {role: iter(each) for role, each in found.items()}
    ids = planned(points, campaign_seed=0, training_shards=["0"], shards_per_simulation=1)
    there = {each.id: next(turns[each.role]) is not None for each in ids}
    done = [number for number, found_it in there.items() if found_it]
    return Matched(rows, done, [number for number in there if not there[number]])


def check(campaign: Campaign, data: DataSet) -> None:
    """Raises DataSetError where parameters or fields are not the campaign's."""
    names = list(campaign.design.parameters)
    if data.parameter_names != names:
        raise DataSetError(
            f"{data.path} has the parameters {', '.join(data.parameter_names)}; the campaign has "
            f"{', '.join(names)}."
        )
    for name, spec in campaign.fields.items():
        about = data.about.get(name)
        if about is None:
            raise DataSetError(
                f"{data.path} has the fields {', '.join(data.about)}; the campaign needs {name}."
            )
        if about.shape != spec.sent_shape:
            raise DataSetError(
                f"{name} has the shape {about.shape} in {data.path}, and {spec.sent_shape} in the "
                "campaign."
            )
