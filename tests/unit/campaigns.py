"""A small campaign as text, for the tests of config and design."""

from __future__ import annotations

from penstock_server.config import Campaign, parse

SMALL = """\
name = "small"
seed = 1

[solver]
command = ["{python}", "-m", "penstock_solvers.heat_numpy"]
workers = 2
steps = 100

[design]
sampler = "sobol"
simulations = 200
validation = 16

[design.parameters]
T0 = { low = 100, high = 500 }
k = { low = 0.01, high = 1, distribution = "log-uniform" }

[fields.temperature]
shape = [32, 32]
unit = "K"

[reservoir]
draws_per_sample = 1.25

[training]
batch_size = 10
"""


def line_of(text: str, start: str) -> int:
    """The line, counted from 1, that begins with `start`."""
    return [line.startswith(start) for line in text.splitlines()].index(True) + 1


def small(*overrides: str) -> Campaign:
    return parse(SMALL, overrides)
