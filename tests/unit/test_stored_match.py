"""Which rows of a data set are a campaign's simulations: by role and parameters, strictly."""

from __future__ import annotations

from pathlib import Path

import pytest
import stored

from penstock_server.config import Campaign, parse
from penstock_server.dataset import DataSet, DataSetError
from penstock_server.stored_match import match

CAMPAIGN = """
name = "small"
[solver]
command = ["true"]
steps = 6
[design]
simulations = 3
validation = 1
[design.parameters]
a = { low = 0, high = 1 }
b = { low = -9, high = 0 }
[fields.u]
shape = [3, 2]
"""


def campaign(change: tuple[str, str] = ("", "")) -> Campaign:
    return parse(CAMPAIGN.replace(*change) if change[0] else CAMPAIGN)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    stored.write(tmp_path / "data.h5", {"train": [5, 4, 3], "validation": [1]})
    return DataSet(tmp_path / "data.h5")


def test_simulations_are_found_in_the_order_of_the_design(data: DataSet) -> None:
    points = {
        "train": [stored.point(3), stored.point(5)], "validation": [stored.point(1)], "test": []
    }  # fmt: skip
    found = match(campaign(), data, points)
    ids = [int(data.roles["train"].simulation[row]) for row in found.rows["train"]]
    assert ids == [3, 5]
    assert (found.done, found.absent, found.message) == ([0, 1, 2], [], "")


def test_what_is_missing_is_named_by_the_campaigns_ids(data: DataSet) -> None:
    points = {"train": [stored.point(3), stored.point(8)], "validation": [], "test": []}
    found = match(campaign(), data, points, enough=0.5)
    assert (found.done, found.absent) == ([0], [1])
    assert found.message.startswith("1 of the campaign's simulations")


def test_a_training_simulation_is_no_validation_simulation(data: DataSet) -> None:
    points = {"train": [stored.point(3)], "validation": [stored.point(4)], "test": []}
    with pytest.raises(DataSetError, match="has 0 of the campaign's 1 validation simulations"):
        match(campaign(), data, points)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("a = {", "c = {"), "has the parameters a, b; the campaign has c, b"),
        (("[fields.u]", "[fields.v]"), "has the fields u; the campaign needs v"),
        (("shape = [3, 2]", "shape = [3, 4]"), r"shape \(3, 2\) in .* and \(3, 4\)"),
    ],
)
def test_another_problem_is_refused(data: DataSet, change: tuple[str, str], says: str) -> None:
    with pytest.raises(DataSetError, match=says):
        match(campaign(change), data, {"train": [], "validation": [], "test": []})
