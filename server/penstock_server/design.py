"""The choice of the inputs: which parameters each simulation gets; the coordinator asks for them.

A design is any object with `next(n)`, which returns n more points, fewer when it has no more. The
same seed gives the same points. Your own is named in the campaign file as "module:Class" and made
as Class(parameters, seed, **options); one without `next(n) -> list of dicts` is refused.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from penstock_server.config import Campaign
from penstock_server.references import find
from penstock_server.tables import Parameter

Point = dict[str, float]
Parameters = Mapping[str, Parameter]
Roles = Mapping[str, list[Point]]

# Streams of random numbers that belong to one campaign seed; never renumber them.
TRAIN, VALIDATION, TEST = 0, 1, 2


class DesignError(ValueError):
    """The design cannot give the points that the campaign asks for."""


class Sampler(Protocol):
    def next(self, n: int) -> list[Point]: ...


class Random:
    """Independent points: plain Monte Carlo."""

    def __init__(self, parameters: Parameters, seed: int, stream: int = TRAIN) -> None:
        self.parameters = parameters
        self.rng = np.random.default_rng([seed, stream])

    def next(self, n: int) -> list[Point]:
        return _points(self.parameters, self.rng.random((n, len(self.parameters))))


class LowDiscrepancy:
    """Sobol or Halton, scrambled; any number of points is the beginning of the same sequence."""

    def __init__(self, kind: str, parameters: Parameters, seed: int) -> None:
        self.parameters = parameters
        engine = {"sobol": qmc.Sobol, "halton": qmc.Halton}[kind]
        rng = np.random.default_rng([seed, TRAIN])
        self.engine = engine(d=max(1, len(parameters)), scramble=True, rng=rng)
        self.waiting = np.empty((0, max(1, len(parameters))))

    def next(self, n: int) -> list[Point]:
        # Powers of two keep Sobol's balance, and scipy warns about anything else.
        while len(self.waiting) < n:
            more = 2 ** math.ceil(math.log2(max(n - len(self.waiting), 64)))
            more = max(more, self.engine.num_generated)
            self.waiting = np.concatenate([self.waiting, self.engine.random(more)])
        unit, self.waiting = self.waiting[:n], self.waiting[n:]
        return _points(self.parameters, unit)


class LatinHypercube:
    """One stratum per point and parameter, over the `total` points of the campaign.

    Further points beyond `total` come from further hypercubes of the same size.
    """

    def __init__(self, parameters: Parameters, seed: int, total: int) -> None:
        self.parameters = parameters
        self.total = total
        rng = np.random.default_rng([seed, TRAIN])
        self.engine = qmc.LatinHypercube(d=max(1, len(parameters)), rng=rng)
        self.waiting = np.empty((0, max(1, len(parameters))))

    def next(self, n: int) -> list[Point]:
        while len(self.waiting) < n:
            self.waiting = np.concatenate([self.waiting, self.engine.random(self.total)])
        unit, self.waiting = self.waiting[:n], self.waiting[n:]
        return _points(self.parameters, unit)


class Table:
    """The rows of a CSV file whose header names the parameters, in the order of the file."""

    def __init__(self, path: Path, parameters: Parameters) -> None:
        self.rows = read_points(path, parameters)
        self.at = 0

    def next(self, n: int) -> list[Point]:
        rows = self.rows[self.at : self.at + n]
        self.at += len(rows)
        return rows


class Checked:
    """A user's own sampler, whose points are checked before anybody simulates them."""

    def __init__(self, sampler: Sampler, name: str, parameters: Parameters) -> None:
        self.sampler, self.name, self.parameters = sampler, name, parameters

    def next(self, n: int) -> list[Point]:
        points = self.sampler.next(n)
        if not isinstance(points, list) or len(points) > n:
            raise DesignError(
                f"{self.name}.next({n}) must return a list of at most {n} points, got "
                f"{f'{len(points)} points' if isinstance(points, list) else repr(points)}."
            )
        return [_checked_point(point, self.parameters, self.name) for point in points]


def training_design(c: Campaign) -> Sampler:
    """The design of the training simulations, as the campaign file names it."""
    name, parameters, seed = c.design.sampler, c.design.parameters, c.seed
    if ":" in name:
        return Checked(_own(name, parameters, seed, c.design.options), name, parameters)
    if c.design.options:
        raise DesignError(
            f'sampler = "{name}" takes no options, got {", ".join(c.design.options)}.'
        )
    if name == "csv":
        return Table(Path(str(c.design.file)), parameters)
    if name == "random":
        return Random(parameters, seed)
    if name == "lhs":
        return LatinHypercube(parameters, seed, c.design.simulations)
    return LowDiscrepancy(name, parameters, seed)


def draw(c: Campaign) -> Roles:
    """All points of a campaign by role: "train", "validation", "test".

    Validation and test are Monte Carlo streams of their own, independent of the training design
    and of each other, so that neither changes when the number of the others does. Raises
    DesignError if the design has too few points.
    """
    train = training_design(c).next(c.design.simulations)
    if len(train) < c.design.simulations:
        raise DesignError(
            f"The design {c.design.sampler} has {len(train)} points, but "
            f"design.simulations = {c.design.simulations}. Ask for fewer, or add points."
        )
    return {
        "train": train,
        "validation": Random(c.design.parameters, c.seed, VALIDATION).next(c.design.validation),
        "test": Random(c.design.parameters, c.seed, TEST).next(c.design.test),
    }


def read_points(path: Path, parameters: Parameters) -> list[Point]:
    """The rows of a CSV of points; every mistake names its line."""
    rows = read_table(path, list(parameters))
    values = [({n: _number(cell) for n, cell in row.items()}, where) for where, row in rows]
    return [_checked_point(point, parameters, where) for point, where in values]


def read_table(path: Path, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV whose header has these names, each with its place in words."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, names)
            rows = []
            for cells in reader:
                if not cells:
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise DesignError(f"{where}: expected {len(header)} values, got {len(cells)}.")
                rows.append((where, dict(zip(header, cells, strict=True))))
    except OSError as error:
        raise DesignError(f"The file of points {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DesignError(f"The file of points {path} is not UTF-8 text: {error}.") from error
    return rows


def _check_header(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    if sorted(header) != sorted(names):
        raise DesignError(
            f"{path}, line 1: the header must name the parameters {', '.join(names)}, "
            f"each once, got {', '.join(header) or 'an empty file'}."
        )


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def _checked_point(point: object, parameters: Parameters, where: str) -> Point:
    """The point in the order of the parameters; each value a number inside its range."""
    if not isinstance(point, Mapping) or set(point) != set(parameters):
        names = list(point) if isinstance(point, Mapping) else point
        raise DesignError(
            f"{where}: a point must have the parameters {', '.join(parameters)}, got {names}."
        )
    checked: Point = {}
    for name, parameter in parameters.items():
        value = point[name]
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise DesignError(f"{where}: {name} must be a number, got {value!r}.")
        number, (low, high) = float(value), parameter.box
        if not low <= number <= high:  # NaN as well
            raise DesignError(
                f"{where}: {name} must lie between {low:g} and {high:g}, got {number:g}."
            )
        if parameter.distribution == "choice" and number not in parameter.choices:
            known = ", ".join(f"{choice:g}" for choice in parameter.choices)
            raise DesignError(f"{where}: {name} must be one of {known}, got {number:g}.")
        if parameter.distribution == "integer" and not number.is_integer():
            raise DesignError(f"{where}: {name} must be a whole number, got {number:g}.")
        checked[name] = number
    return checked


def _own(reference: str, parameters: Parameters, seed: int, options: Mapping[str, Any]) -> Sampler:
    made = find(reference, "design.sampler", DesignError)
    try:
        sampler = made(parameters, seed, **options)
    except TypeError as error:
        raise DesignError(
            f'The sampler "{reference}" is made as Class(parameters, seed, **options): {error}.'
        ) from error
    if not callable(getattr(sampler, "next", None)):
        raise DesignError(f'The sampler "{reference}" needs a method next(n) -> list of dicts.')
    return cast(Sampler, sampler)


def _points(parameters: Parameters, unit: npt.NDArray[np.float64]) -> list[Point]:
    """Points from the unit cube, (point, parameter) in [0, 1)."""
    columns = {
        name: _scaled(parameter, unit[:, axis])
        for axis, (name, parameter) in enumerate(parameters.items())
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(unit))]


def _scaled(p: Parameter, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if p.distribution == "choice":
        index = np.minimum((unit * len(p.choices)).astype(np.int64), len(p.choices) - 1)
        return np.asarray(p.choices, dtype=np.float64)[index]
    low, high = p.box
    if p.distribution == "integer":
        return np.minimum(np.floor(low + unit * (high - low + 1)), high)
    if p.distribution == "log-uniform":
        scaled = np.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        scaled = low + unit * (high - low)
    return cast(npt.NDArray[np.float64], np.clip(scaled, low, high))
