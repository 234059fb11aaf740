"""The command line of a solver: its parameters, for a run on its own; called by every main()."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

Box = Mapping[str, tuple[float, float]]


def parser(module_doc: str, box: Box, logarithmic: tuple[str, ...] = ()) -> argparse.ArgumentParser:
    """A parser with one option for each parameter of the box, by default the middle.

    Of the names in `logarithmic` the geometric middle is taken. A campaign's own values win over
    these options.
    """
    result = argparse.ArgumentParser(
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = result.add_argument_group("parameters of a run without a campaign")
    for name, (low, high) in box.items():
        middle = math.sqrt(low * high) if name in logarithmic else (low + high) / 2
        group.add_argument(
            f"--{name}",
            type=float,
            default=middle,
            metavar="VALUE",
            help=f"between {low:g} and {high:g}; default {middle:g}",
        )
    return result


def parameters(options: argparse.Namespace, box: Box) -> dict[str, float]:
    """The parameters as given on the command line."""
    return {name: float(getattr(options, name)) for name in box}
