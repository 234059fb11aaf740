"""How the network of a run is used; for `writing`."""

from __future__ import annotations

from penstock_server.report.blocks import Block, Code, Missing, Section, Text
from penstock_server.report.files import at, table
from penstock_server.report.reading import Run


def use_section(run: Run) -> Section:
    """A few lines of Python, and the command."""
    title = "Using the network"
    if not (run.folder / "model" / "model.json").is_file():
        return Section(title, [Missing("The run left no model.")])
    folder = run.folder / ("best" if run.has_best else "model")
    specs = table(run.campaign, "design", "parameters")
    middle = {name: _middle(spec) for name, spec in specs.items()}
    python = ", ".join(f'"{name}": {value}' for name, value in middle.items())
    command = ",".join(f"{name}={value}" for name, value in middle.items())
    blocks: list[Block] = [
        Text(
            "model/ is the network after the last batch"
            + (", best/ the one with the least validation error." if run.has_best else ".")
        ),
        Code(
            "from penstock_surrogates import load\n\n"
            f'surrogate = load("{folder}")\n'
            f"fields = surrogate.predict({{{python}}}, t=[0.5, 1.0])"
        ),
        Code(f"penstock predict {run.folder} --params {command}"),
    ]
    return Section(title, blocks)


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
