"""How the network of a run is used; for `writing`."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_server.report.blocks import Block, Code, Missing, Section, Text
from penstock_server.report.files import at, table
from penstock_server.report.reading import Run


def use_section(run: Run) -> Section:
    """A few lines of Python, and the command; both ask the same network."""
    title = "Using the network"
    if run.model is None:
        return Section(title, [Missing("The run left no model.")])
    told = "model/ is the network after the last batch."
    if run.has_best:
        told = (
            "model/ is the network after the last batch, best/ the one with the least validation "
            "error, which is asked here."
        )
    folder = run.folder / ("best" if run.has_best else "model")
    specs = table(run.campaign, "design", "parameters")
    middle = {name: _middle(spec) for name, spec in specs.items()}
    inputs = table(run.model, "problem", "inputs")
    given = [_dictionary(middle), *_times(run)]
    if inputs:
        given.append(f"inputs={_dictionary({name: name for name in inputs})}")
    blocks: list[Block] = [
        Text(told),
        Code(
            "from penstock_surrogates import load\n\n"
            f'surrogate = load("{folder}")\n'
            f"fields = surrogate.predict({', '.join(given)})"
        ),
    ]
    if not inputs:  # which a command line cannot give
        command = ",".join(f"{name}={value}" for name, value in middle.items())
        blocks.append(Code(f"penstock predict {folder} --params {command}"))
    return Section(title, blocks)


def _dictionary(values: Mapping[str, str]) -> str:
    """As Python writes it; values are expressions."""
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def _times(run: Run) -> list[str]:
    """The middle and the end of the times that were trained on; nothing of a steady problem."""
    low, high = at(run.model, "normalisation", "t_range") or (0.0, 0.0)
    if low == high == 0.0:
        return []
    times = (high,) if low == high else ((low + high) / 2, high)
    return ["t=[" + ", ".join(f"{t:.12g}" for t in times) + "]"]


def _middle(spec: object) -> str:
    """A value inside of the box."""
    choices = at(spec, "choices")
    if choices:
        return f"{choices[0]:g}"
    low, high = float(at(spec, "low") or 0.0), float(at(spec, "high") or 0.0)
    if at(spec, "distribution") == "log-uniform" and low > 0:
        return f"{(low * high) ** 0.5:.3g}"
    if at(spec, "distribution") == "integer":
        return f"{(low + high) // 2:g}"
    return f"{(low + high) / 2:.4g}"
