"""The picture is drawn for every kind of field, with whatever is known."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from penstock_server.pictures import (
    Curves,
    Example,
    OverTime,
    demo_picture,
    most_pictorial,
    spread_labels,
)

K = 6
FULL = Curves(
    loss=[(b, 1.0 / (1 + b)) for b in range(0, 100, 10)],
    validation=[(0, 1.0), (50, 0.2), (100, 0.1)],
    constant=1.0,
    linear=1e-9,
    over_t=OverTime(t=range(K), network=[0.1] * K, constant=[1.0] * K, linear=[1e-9] * K),
)


def example(shape: tuple[int, ...], components: int = 1, steps: int = K) -> Example:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(steps, *shape))
    return Example(
        field="u",
        unit="K",
        simulation=3,
        role="validation",
        parameters={f"T{i}": 100.0 + i for i in range(5)},
        t=np.arange(steps) * 0.1,
        truth=truth,
        prediction=truth + 0.1,
        components=components,
    )


@pytest.mark.parametrize(
    ("shape", "components"),
    [((8, 8), 1), ((8, 24), 1), ((8, 8, 2), 2), ((4, 6, 6), 1), ((30,), 1), ((), 1), ((3,), 3)],
    ids=["plane", "long plane", "vectors", "volume", "line", "scalar", "components"],
)
def test_every_kind_of_field_has_a_picture(
    tmp_path: Path, shape: tuple[int, ...], components: int
) -> None:
    demo_picture(tmp_path / "new" / "p.png", example(shape, components), FULL, "A title")
    pixels = imread(tmp_path / "new" / "p.png")
    assert pixels.shape[1] > 1200
    assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize(
    "curves",
    [
        Curves(),
        Curves(loss=[(1, 0.5)], loss_name="l1"),
        Curves(validation=[(0, 0.0), (5, float("nan"))], constant=0.0, linear=0.0),
        Curves(validation=[(1, 0.5)], constant=1.0, linear=0.4),
    ],
    ids=["nothing", "a loss", "zeros and nan", "no curve over t"],
)
def test_what_is_not_known_is_left_out(tmp_path: Path, curves: Curves) -> None:
    demo_picture(tmp_path / "p.png", example((4, 4), steps=1), curves)
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_labels_do_not_touch() -> None:
    for heights in ([0.5, 0.5, 0.5], [0.95, 1.0, 0.02], [0.9, 0.99, 0.97], [0.2], []):
        placed = spread_labels(heights, distance=0.17)
        ordered = sorted(placed)
        assert all(b - a > 0.169 for a, b in pairwise(ordered))
        assert all(-0.01 <= p <= 1.0 for p in placed)
    assert spread_labels([0.1, 0.8], distance=0.17) == [0.1, 0.8]


def test_the_field_with_most_axes_is_shown() -> None:
    fields = {"q": ((), 1), "velocity": ((8, 8, 2), 2), "line": ((500,), 1)}
    assert most_pictorial(fields) == "velocity"
    assert most_pictorial({"lorenz": ((3,), 3), "line": ((5,), 1)}) == "line"
