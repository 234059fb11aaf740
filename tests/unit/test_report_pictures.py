"""The report's pictures: both backgrounds, all kinds of fields, readable ranges."""

from __future__ import annotations

import base64
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from penstock_server.pictures.report_bars import Bar, draw_bars
from penstock_server.pictures.report_curves import Curve, Level, Panel, draw_panels, limits
from penstock_server.pictures.report_design import Axis, Cloud, draw_design
from penstock_server.pictures.report_fields import Shown, draw_example
from penstock_server.pictures.twice import DARK, LIGHT, Drawn, Theme


def check(drawn: Drawn) -> None:
    """Both are whole images that a browser knows, and they differ."""
    assert drawn.light != drawn.dark
    for uri in (drawn.light, drawn.dark):
        kind, _, data = uri.partition(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert kind == "data:image/png"
            assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("shape", "components"),
    [
        ((), 1),
        ((3,), 3),
        ((20,), 1),
        ((20, 2), 2),
        ((8, 8), 1),
        ((4, 40), 1),
        ((4, 4, 2), 2),
        ((4, 4, 4), 1),
    ],
)
def test_a_field_of_any_dimension_is_drawn(shape: tuple[int, ...], components: int) -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=(4, *shape))
    shown = Shown("u ($ and _)", components, np.arange(4.0), truth, truth + 0.1)
    check(draw_example(shown))


def test_a_perfect_prediction_and_a_single_time_are_drawn() -> None:
    truth = np.ones((1, 5, 5))
    check(draw_example(Shown("u", 1, np.zeros(1), truth, truth)))


def test_the_axis_shows_the_networks_and_names_what_is_far_below() -> None:
    network = Curve("network", [0, 1], [0.5, 0.1], "network")
    near = Panel("t", [network], [Level("best constant", 1.0, "constant")])
    far = Panel("t", [network], [Level("linear emulator", 1e-8, "linear")])
    low, high = limits([near])
    assert low < 0.1 < 1.0 < high
    low, high = limits([far])
    assert 0.05 < low < 0.1
    check(draw_panels([near, far], "nRMSE"))


def test_values_that_have_no_logarithm_do_not_decide_the_axis() -> None:
    curve = Curve("network", [0, 1, 2], [0.0, math.nan, 0.5], "network")
    low, high = limits([Panel("t", [curve])])
    assert 0 < low < 0.5 < high < 1
    assert limits([Panel("t", [])])[0] > 0


@pytest.mark.parametrize("p", [1, 2, 8])
def test_designs_of_any_number_of_parameters_are_drawn(p: int) -> None:
    random = np.random.default_rng(1)
    axes = [Axis(f"p{i}", 0.01, 1.0, logarithmic=i == 0) for i in range(p)]
    clouds = [
        Cloud("completed", random.uniform(0.01, 1, (30, p)), "o", "network"),
        Cloud("failed", random.uniform(0.01, 1, (1, p)), "X", "bad"),
    ]
    check(draw_design(axes, clouds))


def test_parts_of_several_bars_have_one_colour_each() -> None:
    check(draw_bars([Bar("one", {"a": 1.0, "b": 2.0}), Bar("two", {"b": 5.0, "c": 0.0})], "s"))
    check(draw_bars([Bar("none", {"a": 0.0})], "%"))


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("theme", "paper"), [(LIGHT, "#ffffff"), (DARK, "#14181d")])
def test_colours_stand_out_from_the_paper(theme: Theme, paper: str) -> None:
    def contrast(colour: str) -> float:
        light, dark = sorted([luminance(colour), luminance(paper)], reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for name in ("ink", "faint"):
        assert contrast(getattr(theme, name)) >= 4.5, name
    for name in ("network", "best", "constant", "linear", "bad"):
        assert contrast(getattr(theme, name)) >= 3, name
    for colour in theme.series:
        assert contrast(colour) >= 3, colour
