"""`penstock rerun`: one simulation of a run, with its own inputs and seed, by a real program."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock_server.cli import app
from penstock_server.config import parse
from penstock_server.coordinator.records import Simulation
from penstock_server.coordinator.store import Store

CAMPAIGN = """
name = "small"
[solver]
command = {command}
steps = 6
[design]
simulations = 2
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [8, 8]
unit = "K"
"""
HEAT = '["{python}", "-m", "penstock_solvers.heat_numpy", "--n", "8", "--steps", "6"]'
TELLS = """[
    "{python}", "-c", '''
import sys
import penstock
with penstock.connect() as link:
    for sim in link.simulations():
        print("told", sim.id, sim.seed, sim.parameters["T0"], file=sys.stderr)
        sim.fail("it diverged at t = 3")
''']"""
POINT = {"T0": 300.0, "T1": 410.0, "T2": 200.0, "T3": 350.0, "T4": 150.0}


def a_run(tmp_path: Path, command: str) -> Path:
    root = tmp_path / "runs" / "small" / "1"
    root.mkdir(parents=True)
    parse(CAMPAIGN.format(command=command)).save(root / "campaign.toml")
    store = Store(root / "coordinator.sqlite")
    store.write(
        [
            Simulation(0, "train", POINT, 11, ["0"], state="completed", attempts=1),
            Simulation(
                7, "train", POINT, 4711, ["0"], state="failed", attempts=3, reason="it diverged"
            ),
        ]
    )
    store.close()
    return root


def rerun(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["rerun", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_simulation_is_repeated_with_its_own_inputs(tmp_path: Path) -> None:
    code, output = rerun(a_run(tmp_path, HEAT), 7)
    assert code == 0, output
    assert "Simulation 7 (train): failed after 3 attempts: it diverged" in output
    assert "6 whole steps of 6" in " ".join(output.split())
    assert "150 to 410 K" in output


def test_a_failure_is_shown_with_the_solvers_own_words(tmp_path: Path) -> None:
    code, output = rerun(a_run(tmp_path, TELLS), 7)
    assert code == 1
    assert "it diverged at t = 3" in output
    assert "told 7 4711 300.0" in output


@pytest.mark.parametrize(("number", "said"), [("3", "they are 0 to 7"), ("0x", "integer")])
def test_an_unknown_simulation_is_named(tmp_path: Path, number: str, said: str) -> None:
    code, output = rerun(a_run(tmp_path, HEAT), number)
    assert code != 0
    assert said in " ".join(output.split())


def test_a_run_without_books_or_with_damaged_ones_says_so(tmp_path: Path) -> None:
    root = a_run(tmp_path, HEAT)
    (root / "coordinator.sqlite").write_bytes(b"no database" * 100)
    for leftover in root.glob("coordinator.sqlite-*"):
        leftover.unlink()
    code, output = rerun(root, 7)
    assert code == 1
    assert "cannot be read" in output
    (root / "coordinator.sqlite").unlink()
    code, output = rerun(root, 7)
    assert code == 1
    assert "has no coordinator.sqlite" in output
