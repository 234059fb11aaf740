"""`penstock demo`: which campaign it takes and why, and when it counts as a success."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_cli_commands import SUMMARY, Outcome

from penstock_server import demo
from penstock_server.config import Campaign
from penstock_server.demo import Choice, choose, verdict
from penstock_server.interpreters import NEEDED, Interpreter, SolverError, Starter

FENICS = Interpreter("/opt/python", "3.11", dict.fromkeys(NEEDED, "0.5.2"), "Open MPI")
BARE = Interpreter("/opt/python", "3.11", {"numpy": "1.24"})
OPEN_MPI = Starter("/opt/mpirun", "Open MPI", (4, 1))


def chosen(python: Interpreter, mpi: Starter | None, compiler: bool = True) -> Choice:
    return choose(lambda: python, lambda _: mpi, lambda: compiler)


def test_fenicsx_under_mpi_is_taken_where_both_are_there() -> None:
    choice = chosen(FENICS, OPEN_MPI)
    assert choice.name == "demo"
    assert "DOLFINx 0.5.2 of /opt/python" in choice.why


@pytest.mark.parametrize(
    ("python", "mpi", "compiler", "why"),
    [
        (BARE, OPEN_MPI, True, "No Python interpreter here has DOLFINx"),
        (FENICS, None, True, "There is no mpirun here"),
        (FENICS, Starter("/opt/mpirun", "MPICH"), True, "is of Open MPI, and /opt/mpirun of MPICH"),
        (FENICS, OPEN_MPI, False, "needs a C compiler"),
    ],
)
def test_what_is_missing_is_named_and_numpy_taken(
    python: Interpreter, mpi: Starter | None, compiler: bool, why: str
) -> None:
    choice = chosen(python, mpi, compiler)
    assert choice.name == "demo_numpy"
    assert why in choice.why
    assert "numpy" in choice.why


def test_a_broken_choice_of_interpreter_is_told() -> None:
    def broken() -> Interpreter:
        raise SolverError("PENSTOCK_SOLVER_PYTHON does not run.")

    assert choose(broken, lambda _: OPEN_MPI, lambda: True).why.startswith("PENSTOCK_SOLVER")


def test_a_run_ends_with_what_it_waited_for_and_with_advice() -> None:
    found = {
        "ranks_s": [{"compute": 70.0, "wait": 30.0}],
        "waits_s": {"start": 17.7, "solver": 12.0, "network": 0.3},
    }
    advice = "Training waited 12 % of the time, because 4 workers produce 70 % of what it can use."
    shown = shown_end({**SUMMARY, "attribution": found, "advice": advice})
    assert "the first samples 18 %, the solvers 12 %\n" in shown
    assert " ".join(advice.split()) in " ".join(shown.split())
    without = shown_end(SUMMARY)
    assert "waited for" not in without
    assert "advice" not in without


def shown_end(summary: dict[str, Any]) -> str:
    file = io.StringIO()
    Console(file=file, width=160).print(demo.closing(summary))
    return "\n".join(line.rstrip(" │") for line in file.getvalue().splitlines()) + "\n"


def with_errors(**figures: Any) -> dict[str, Any]:
    return {**SUMMARY, "validation": {**SUMMARY["validation"], **figures}}


def test_only_a_network_better_than_the_constant_is_a_success() -> None:
    assert verdict(SUMMARY, True)[1]
    assert "30 times smaller" in verdict(SUMMARY, True)[0]
    assert not verdict(with_errors(value=0.9), True)[1]
    assert not verdict(with_errors(value=float("nan")), True)[1]
    assert not verdict(with_errors(value=None), True)[1]
    assert not verdict(SUMMARY, False)[1]


def run_demo(tmp_path: Path, summary: dict[str, Any], **options: bool) -> tuple[int, str, Campaign]:
    ran: list[Campaign] = []

    def run(campaign: Campaign) -> Outcome:
        ran.append(campaign)
        return Outcome(summary, tmp_path, True)

    console = Console(file=io.StringIO(), width=100)
    code = demo.demo(run, console, **options)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue(), ran[0]


def test_the_demo_runs_judges_and_says_what_to_do_next(tmp_path: Path) -> None:
    code, output, campaign = run_demo(tmp_path, SUMMARY, numpy=True)
    assert code == 0
    assert campaign.name == "demo-numpy"
    assert "--numpy was given" in output
    assert "0.03  network" in output
    assert "penstock check mine.toml" in output


def test_where_penstock_is_not_on_path_the_line_that_puts_it_there_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "activate"
    script.parent.mkdir()
    script.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    told = demo._next_steps(tmp_path / "c.toml", tmp_path)
    assert told.index(f". {script}\n") < told.index("penstock check")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "activate" not in demo._next_steps(tmp_path / "c.toml", tmp_path)


def test_a_demo_that_learned_nothing_fails(tmp_path: Path) -> None:
    code, output, _ = run_demo(tmp_path, with_errors(value=1.2), numpy=True)
    assert code == 1
    assert "has not learned anything" in output


def test_quick_is_the_same_campaign_with_fewer_simulations(tmp_path: Path) -> None:
    _, _, quick = run_demo(tmp_path, SUMMARY, numpy=True, quick=True)
    _, _, full = run_demo(tmp_path, SUMMARY, numpy=True)
    assert quick.design.simulations * 5 == full.design.simulations
    assert quick.solver == full.solver
