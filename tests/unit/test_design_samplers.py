"""The designs: ranges, reproducibility, independence, and points from files and from users."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from campaigns import small
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock_server.config import Campaign
from penstock_server.design import DesignError, Random, draw, training_design
from penstock_server.tables import Parameter

SAMPLERS = ["random", "lhs", "halton", "sobol"]
ALL_KINDS = (
    "design.parameters={"
    "u={low=-2,high=3},"
    "l={low=1e-4,high=10,distribution='log-uniform'},"
    "i={low=1,high=6,distribution='integer'},"
    "c={choices=[0.5,2,8],distribution='choice'}}"
)


def columns(points: list[dict[str, float]]) -> dict[str, npt.NDArray[np.float64]]:
    return {name: np.array([point[name] for point in points]) for name in points[0]}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n", [1, 3, 100, 1000])
def test_points_are_in_their_ranges_and_no_warning_is_given(sampler: str, n: int) -> None:
    campaign = small(f"design.sampler={sampler}", f"design.simulations={n}", ALL_KINDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # sobol warns when a count is no power of two
        points = draw(campaign)["train"]
    assert len(points) == n
    values = columns(points)
    assert list(points[0]) == ["u", "l", "i", "c"]
    assert values["u"].min() >= -2
    assert values["u"].max() <= 3
    assert values["l"].min() >= 1e-4
    assert values["l"].max() <= 10
    assert set(values["i"]) <= set(range(1, 7))
    assert set(values["c"]) <= {0.5, 2.0, 8.0}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_have_the_declared_distributions(sampler: str) -> None:
    campaign = small(f"design.sampler={sampler}", "design.simulations=2000", ALL_KINDS)
    values = columns(draw(campaign)["train"])
    uniform = stats.uniform(-2, 5)
    log_uniform = stats.uniform(math.log(1e-4), math.log(10 / 1e-4))
    assert stats.kstest(values["u"], uniform.cdf).statistic < 0.05
    assert stats.kstest(np.log(values["l"]), log_uniform.cdf).statistic < 0.05
    for name, share in (("i", 1 / 6), ("c", 1 / 3)):
        counts = np.unique(values[name], return_counts=True)[1]
        assert counts.min() > 0.8 * share * 2000
        assert counts.max() < 1.2 * share * 2000


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_points_and_another_seed_others(sampler: str) -> None:
    names = [f"design.sampler={sampler}", "design.test=5"]
    assert draw(small(*names)) == draw(small(*names))
    other = draw(small(*names, "seed=2"))
    for role, points in draw(small(*names)).items():
        assert points[0] != other[role][0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_asked_for_in_pieces_are_the_same_points(sampler: str) -> None:
    campaign = small(f"design.sampler={sampler}", "design.simulations=300")
    whole = training_design(campaign).next(300)
    pieces = training_design(campaign)
    assert [point for n in (1, 99, 200) for point in pieces.next(n)] == whole


@pytest.mark.parametrize("sampler", ["random", "halton", "sobol"])
def test_more_simulations_begin_with_the_same_points(sampler: str) -> None:
    few = small(f"design.sampler={sampler}", "design.simulations=60")
    many = small(f"design.sampler={sampler}", "design.simulations=500")
    assert draw(many)["train"][:60] == draw(few)["train"]


def test_held_out_points_do_not_depend_on_the_other_roles() -> None:
    plain = draw(small("design.test=40"))
    changed = draw(small("design.test=40", "design.sampler=random", "design.simulations=7"))
    fewer = draw(small("design.test=10", "design.validation=3"))
    assert plain["validation"] == changed["validation"]
    assert plain["test"] == changed["test"]
    assert plain["validation"][:3] == fewer["validation"]
    assert plain["test"][:10] == fewer["test"]


def test_no_point_is_in_two_roles() -> None:
    campaign = small("design.sampler=random", "design.validation=200", "design.test=200")
    roles = draw(campaign)
    seen = [tuple(point.values()) for points in roles.values() for point in points]
    assert len(set(seen)) == len(seen) == 600


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_held_out_points_are_not_correlated_with_training_points(sampler: str) -> None:
    n = 1024
    roles = draw(
        small(
            f"design.sampler={sampler}",
            *(f"design.{key}={n}" for key in ("simulations", "validation", "test")),
        )
    )
    T0 = [columns(roles[role])["T0"] for role in ("train", "validation", "test")]
    correlations = np.corrcoef(T0)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / math.sqrt(n)


def test_a_latin_hypercube_has_one_point_in_each_stratum() -> None:
    values = columns(draw(small("design.sampler=lhs", "design.simulations=50"))["train"])
    strata = np.floor((values["T0"] - 100) / 400 * 50).astype(int)
    assert sorted(strata) == list(range(50))


def test_sobol_keeps_its_balance_at_a_power_of_two() -> None:
    values = columns(draw(small("design.sampler=sobol", "design.simulations=256"))["train"])
    strata = np.floor((values["T0"] - 100) / 400 * 256).astype(int)
    assert sorted(strata) == list(range(256))


@settings(max_examples=50, deadline=None)
@given(st.integers(-5, 5), st.integers(1, 9), st.integers(0, 2**32))
def test_every_whole_number_of_a_range_is_drawn(low: int, width: int, seed: int) -> None:
    parameter = Parameter(low=low, high=low + width, distribution="integer")
    values = {p["a"] for p in Random({"a": parameter}, seed).next(40 * (width + 1))}
    assert values == set(range(low, low + width + 1))


def test_simulations_without_parameters_get_empty_points() -> None:
    campaign = small("design.parameters={}", "fields.a={shape=[2], role='input'}")
    for sampler in SAMPLERS:
        points = draw(campaign.model_copy(update={"design": _with(campaign, sampler)}))["train"]
        assert points == [{}] * 200


def _with(campaign: Campaign, sampler: str) -> object:
    return campaign.design.model_copy(update={"sampler": sampler})


def csv_campaign(tmp_path: Path, text: str, n: int = 2) -> Campaign:
    path = tmp_path / "points.csv"
    path.write_text(text)
    return small("design.sampler=csv", f"design.file={path}", f"design.simulations={n}")


def test_a_csv_is_taken_row_by_row_whatever_the_order_of_its_columns(tmp_path: Path) -> None:
    campaign = csv_campaign(tmp_path, "\ufeffk, T0\n0.5,100\n\n1e-1 , 200\n1,300\n")
    points = draw(campaign)["train"]
    assert points == [{"T0": 100.0, "k": 0.5}, {"T0": 200.0, "k": 0.1}]
    assert list(points[0]) == ["T0", "k"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("T0\n1\n", "line 1: the header must name the parameters T0, k, each once, got T0"),
        ("T0,k,k\n1,2,3\n", "got T0, k, k"),
        ("", "got an empty file"),
        ("T0,k\n100,0.5\n200\n", "line 3: expected 2 values, got 1"),
        ("T0,k\n100,hot\n", "line 2: k must be a number, got 'hot'"),
        ("T0,k\n100,nan\n", "line 2: k must lie between 0.01 and 1, got nan"),
        ("T0,k\n99,0.5\n", "line 2: T0 must lie between 100 and 500, got 99"),
        ("T0,k\n100,0.5\n", "has 1 points, but design.simulations = 2"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DesignError) as caught:
        draw(csv_campaign(tmp_path, text))
    assert sentence in str(caught.value)


class Grid:
    """A user's own sampler: a line through the box."""

    def __init__(self, parameters: Mapping[str, Parameter], seed: int, start: int = 0) -> None:
        self.boxes = {name: parameter.box for name, parameter in parameters.items()}
        self.at = start

    def next(self, n: int) -> list[dict[str, float]]:
        points = []
        for _ in range(n):
            share = self.at / 1000
            self.at += 1
            points.append({k: low + share * (high - low) for k, (low, high) in self.boxes.items()})
        return points


class Outside(Grid):
    def next(self, n: int) -> list[dict[str, float]]:
        return [{"T0": 1000.0, "k": 0.5}] * n


class TooMany(Grid):
    def next(self, n: int) -> list[dict[str, float]]:
        return super().next(n + 1)


class NoNext:
    def __init__(self, parameters: Mapping[str, Parameter], seed: int) -> None:
        pass


def own(name: str, *overrides: str) -> Campaign:
    return small(f"design.sampler={__name__}:{name}", *overrides)


def test_a_users_own_sampler_gives_the_points() -> None:
    points = draw(own("Grid", "design.options={start = 500}"))["train"]
    assert points[0]["T0"] == 300
    assert len(points) == 200


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Outside", "T0 must lie between 100 and 500, got 1000"),
        ("TooMany", "must return a list of at most 200 points, got 201 points"),
        ("NoNext", "needs a method next(n)"),
        ("Absent", "cannot be imported"),
    ],
)
def test_a_wrong_sampler_of_a_user_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(DesignError) as caught:
        draw(own(name))
    assert sentence in str(caught.value)


def test_a_wrong_option_of_a_sampler_is_a_sentence() -> None:
    with pytest.raises(DesignError, match="is made as Class"):
        draw(own("Grid", "design.options={begin = 1}"))
    with pytest.raises(DesignError, match=r'sampler = "sobol" takes no options, got a'):
        draw(small("design.options={a = 1}"))
