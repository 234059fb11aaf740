"""`penstock demo`: the heat equation trains a network while it is solved, and figures at the end.

`choose` takes the FEniCSx solver under MPI if this machine has it, else the numpy one, and says
why. `penstock run` ends with `show_end` as well.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock_server.config import Campaign, load
from penstock_server.doctor import compiler
from penstock_server.examples import example
from penstock_server.figures import clock_time, figure, number, percent, size
from penstock_server.interpreters import (
    Interpreter,
    SolverError,
    Starter,
    find_interpreter,
    find_starter,
)
from penstock_server.panel import CAUSES, SHARES, shown_shares

# For --quick: a fifth of the simulations, so that it takes well under a minute.
QUICK = (
    "design.simulations=40",
    "design.validation=8",
    "reservoir.capacity=2000",
    "reservoir.threshold=200",
    "validation.every_batches=100",
)


class Outcome(Protocol):
    """What a run left; the supervisor's Outcome."""

    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def folder(self) -> Path: ...
    @property
    def ok(self) -> bool: ...


class Choice(NamedTuple):
    """An example campaign by name, and in a sentence why it is this one."""

    name: str
    why: str


def demo(
    run: Callable[[Campaign], Outcome],
    console: Console,
    *,
    numpy: bool = False,
    quick: bool = False,
) -> int:
    """Chooses, runs and judges; 0 if the run completed and its network beats the constant."""
    chosen = Choice("demo_numpy", "--numpy was given.") if numpy else choose()
    path = example(chosen.name)
    console.print(Text(f"{path}: {chosen.why}"), soft_wrap=True)
    outcome = run(load(path, QUICK if quick else ()))
    show_end(console, outcome.summary, outcome.folder)
    sentence, good = verdict(outcome.summary, outcome.ok)
    console.print(Text(sentence, "green" if good else "bold red"), soft_wrap=True)
    if good:
        console.print(Text(_next_steps(path, outcome.folder)), soft_wrap=True)
    return 0 if good else 1


def choose(
    find_python: Callable[[], Interpreter] = find_interpreter,
    find_mpi: Callable[[Interpreter | None], Starter | None] = find_starter,
    has_compiler: Callable[[], bool] = lambda: compiler().state == "ok",
) -> Choice:
    """The demo that this machine can run."""
    instead = "so the heat equation is solved with numpy. `penstock doctor` says how to get it."
    try:
        interpreter = find_python()
    except SolverError as error:
        return Choice("demo_numpy", f"{error} Until then the heat equation is solved with numpy.")
    if not interpreter.sees_dolfinx:
        return Choice("demo_numpy", f"No Python interpreter here has DOLFINx, {instead}")
    starter = find_mpi(interpreter)
    if starter is None:
        return Choice("demo_numpy", f"There is no mpirun here, {instead}")
    if interpreter.mpi and starter.flavour != interpreter.mpi:
        return Choice(
            "demo_numpy",
            f"mpi4py of {interpreter.path} is of {interpreter.mpi}, and {starter.path} of "
            f"{starter.flavour}, {instead}",
        )
    if not has_compiler():
        return Choice("demo_numpy", f"DOLFINx needs a C compiler, and there is none, {instead}")
    version = interpreter.found.get("dolfinx", "")
    return Choice(
        "demo",
        f"FEniCSx (DOLFINx {version} of {interpreter.path}) under {starter.flavour} solves the "
        "heat equation, and a network learns it meanwhile.",
    )


def verdict(summary: Mapping[str, Any], ok: bool) -> tuple[str, bool]:
    """Whether the demo did what it is to show, in a sentence."""
    found: Mapping[str, Any] = summary.get("validation") or {}
    value, constant = found.get("value"), found.get("baseline")
    if not ok:
        return "The run did not complete; see its logs.", False
    if value is None or constant is None:
        return "There is no validation error to judge by; see the run's logs.", False
    if not value < constant:
        return (
            f"The network's error {figure(value)} is not below {figure(constant)}, the best "
            "constant's: it has not learned anything.",
            False,
        )
    times = constant / value if value > 0 else float("inf")
    return f"The network's error is {times:.3g} times smaller than the best constant's.", True


def _next_steps(campaign: Path, folder: Path) -> str:
    return (
        "Next: copy the campaign file and put your own solver in it; `penstock try -- COMMAND` "
        f"shows what a program sends.\n{_activation()}    cp {campaign} mine.toml\n"
        "    penstock check mine.toml\n"
        f"The trained network, in Python: penstock_surrogates.load({str(folder / 'model')!r})"
    )


def _activation() -> str:
    """The line that puts `penstock` on PATH where it is not: `make demo` has it in .venv alone."""
    script = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("penstock") or not script.is_file():
        return ""
    return f"    . {script}\n"


def show_end(console: Console, summary: Mapping[str, Any], folder: Path) -> None:
    """Prints what a finished run ends with."""
    console.print(closing(summary))
    for text in left_behind(summary, folder):
        console.print(Text(text), soft_wrap=True)


def closing(summary: Mapping[str, Any]) -> Table:
    """The table that a finished run ends with; from summary.json alone."""
    found: Mapping[str, Any] = summary.get("validation") or {}
    counts, samples = summary["simulations"], summary["samples"]
    speeds, shares = summary["throughput"], summary["time_share"]
    metric = str(found.get("metric") or "error")
    table = Table(title=f"{summary.get('name', 'run')}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if found.get("value") is None:
        table.add_row("validation error", "none: there was no validation simulation or no model")
    else:
        table.add_row(f"validation error ({metric})", f"{figure(found['value'])}  network")
        table.add_row("", f"{figure(found.get('baseline'))}  best constant")
        table.add_row("", f"{figure(found.get('linear'))}  linear emulator")
    wrong = int(counts.get("failed", 0)) + int(counts.get("quarantined", 0))
    done = f"{counts['completed']} of {counts['requested']} completed, {wrong} failed, "
    table.add_row("simulations", done + f"{counts.get('retried', 0)} tried again")
    table.add_row(
        "samples",
        f"{number(samples['admitted'])} admitted, {number(samples['trained_unique'])} trained on, "
        f"{number(samples['trained_total'])} draws in {number(summary['batches'])} batches",
    )
    table.add_row(
        "per second of training",
        f"{number(speeds['unique_per_s'])} new samples, {number(speeds['draws_per_s'])} draws",
    )
    words = (f"{words} {percent(shares.get(key, 0.0))}" for key, words, _, _ in SHARES)
    table.add_row("training time", ", ".join(words))
    time_s: Mapping[str, Any] = summary.get("attribution") or {}
    ranks_s = time_s.get("ranks_s") or [{}]
    waited = shown_shares(time_s.get("waits_s") or {}, CAUSES, sum(ranks_s[0].values()))
    if waited:
        table.add_row("waited for", waited)
    if summary.get("advice"):
        table.add_row("advice", str(summary["advice"]))
    n_bytes = summary["bytes"]
    to_disk = size(n_bytes["written_fields"]) if n_bytes["written_fields"] else "nothing"
    table.add_row("streamed", f"{size(n_bytes['streamed'])}, {to_disk} of it to a disk")
    table.add_row("took", clock_time(summary["seconds"]))
    return table


def left_behind(summary: Mapping[str, Any], folder: Path) -> list[str]:
    """Where the run's files are, a line each."""
    lines = []
    for name, file in (("picture", "picture.png"), ("model", "model"), ("summary", "summary.json")):
        path = Path(summary.get(name) or folder / file)
        lines.append(f"{name + ':':<9}{path if path.exists() else 'none was made'}")
    return lines
